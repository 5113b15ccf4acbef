"""Attacks on texts: what they may write, how they search, and what they can never cross."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.robustness import TEXT_EDITS
from attnpriv.audit.robustness.text import TextAttackResult, text_attacks
from attnpriv.audit.robustness.text_edits import (
    Edit,
    added_words,
    apply_edits,
    case_and_spacing,
    lookalikes,
    places_of,
    typing_errors,
    zero_width,
)
from attnpriv.audit.robustness.text_search import Target, is_end, search, token_distance
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Dataset, Texts
from attnpriv.data.lookalikes import LOOKALIKES
from attnpriv.data.text import pad_batch
from attnpriv.models.words import WordsClassifier
from attnpriv.runs.folder import Run

from .conftest import make_run

TEXT = "Dear all, my card was charged  twice"


def edits_of(family, text: str = TEXT) -> list[str]:  # type: ignore[no-untyped-def]
    draw = np.random.default_rng(0)
    places = places_of(text, len(text))
    return [apply_edits(text, [edit]) for place in places for edit in family(text, place, draw)]


def test_edits_of_different_places_go_together() -> None:
    edits = [Edit(36, 36, " ok"), Edit(10, 12, "our"), Edit(0, 0, "hello "), Edit(0, 4, "Daer")]
    assert apply_edits(TEXT, edits) == "hello Daer all, our card was charged  twice ok"
    assert apply_edits(TEXT, []) == TEXT
    assert places_of("a bc", 2) == [(0, 1), (0, 0), (4, 4)]


def test_typing_errors_move_drop_or_add_one_letter_and_keep_the_first() -> None:
    found = edits_of(typing_errors)
    assert len(found) == 3 * 4  # of Dear, card, charged and twice
    for text in found:
        assert [w[0] for w in text.split()] == [w[0] for w in TEXT.split()]
        assert abs(len(text) - len(TEXT)) <= 1
        assert token_distance(TEXT, text) <= 2  # type: ignore[arg-type]


def test_lookalikes_differ_in_one_letter_of_the_table() -> None:
    for text in edits_of(lookalikes):
        ((here, there),) = [(a, b) for a, b in zip(TEXT, text, strict=True) if a != b]
        assert there in LOOKALIKES[here]
    assert len({*edits_of(lookalikes)}) == len(edits_of(lookalikes))


def test_zero_width_case_and_spacing_leave_the_letters() -> None:
    assert {text.replace("\u200b", "") for text in edits_of(zero_width)} == {TEXT}
    bare = TEXT.replace(" ", "").casefold()
    assert {text.replace(" ", "").casefold() for text in edits_of(case_and_spacing)} == {bare}
    assert "Dear all, mycard was charged  twice" in edits_of(case_and_spacing)
    assert all(TEXT in text for text in edits_of(added_words))


def test_distance_of_tokens_is_that_of_a_recursion() -> None:
    @cache
    def slow(a: tuple[int, ...], b: tuple[int, ...]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + int(a[0] != b[0]))

    rng = np.random.default_rng(0)
    for _ in range(200):
        one, other = (tuple(rng.integers(0, 3, rng.integers(0, 7)).tolist()) for _ in range(2))
        assert token_distance(one, other) == slow(one, other)


def _sum_of_words(texts, weights) -> np.ndarray:  # type: ignore[no-untyped-def]
    scores = np.array([sum(weights.get(word, 0.0) for word in text.split()) for text in texts])
    return np.stack([np.zeros(len(texts)), scores], axis=1)


@pytest.mark.parametrize("seed", range(8))
def test_a_wide_beam_finds_what_all_combinations_hold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    text = "aa bb cc dd ee"
    others = {place: [f"{w}{i}" for i in range(2)] for place, w in enumerate(text.split())}
    words = [*text.split(), *itertools.chain(*others.values())]
    weights = dict(zip(words, rng.normal(size=len(words)) + 0.3, strict=True))

    def answer(texts):  # type: ignore[no-untyped-def]
        return _sum_of_words(texts, weights)

    if answer([text])[0].argmax() != 1:
        weights |= dict.fromkeys(text.split(), 1.0)
    places = [p for p in places_of(text, 99) if not is_end(p)]
    target = Target.of(answer, text, 1, places)
    choices = [
        [Edit(*place, other) for other in others[places.index(place)]] for place in target.places
    ]
    fewest = next(
        (
            count
            for count in range(1, 6)
            for chosen in itertools.combinations(choices, count)
            for edits in itertools.product(*chosen)
            if answer([apply_edits(text, list(edits))])[0].argmax() != 1
        ),
        None,
    )
    found = search(target, choices, 5, width=10_000)
    assert found.edits == fewest
    # A sum of words has no traps: the greedy search is as good.
    assert search(target, choices, 5, width=1).edits == fewest
    if fewest is not None:
        assert answer([found.text])[0].argmax() != 1
    assert found.queries > len(places)


@pytest.fixture(scope="module")
def words_run(tickets: Dataset) -> Run:
    """A model that reads tokens one by one, its head trained for a second."""
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="words", vocab_size=4096, dim=48, layers=1, heads=1, hidden_dim=1,
        max_length=96, num_labels=10, attention=AttentionConfig(clip=1.0), isolated=True,
    )  # fmt: skip
    model = WordsClassifier(config)
    model.words.weight.data.copy_(F.normalize(torch.randn(4096, 48), dim=-1))
    run = make_run(model, tickets)  # type: ignore[arg-type]
    ids, mask = pad_batch(run.tokenizer.encode_batch(tickets.records, 96), 0)
    model.select_trainable("head")
    optimizer = torch.optim.Adam(model.head.parameters(), lr=0.3)
    for _ in range(150):
        loss = F.cross_entropy(model(ids, mask), torch.tensor(tickets.labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.requires_grad_(False).eval()
    return run


@pytest.fixture(scope="module")
def tickets_read(words_run: Run, tickets: Dataset) -> Documents:
    data = tickets.subset(range(30))
    return prepare(words_run.modality, data, [()] * 30)


@pytest.fixture(scope="module")
def attacked(words_run: Run, tickets_read: Documents) -> TextAttackResult:
    return text_attacks(words_run, tickets_read, 10)


def test_an_undefended_model_is_broken_and_the_controls_hold(attacked: TextAttackResult) -> None:
    assert attacked.valid
    assert attacked.positive.passed
    assert attacked.null.passed
    clean, last = attacked.clean.value, attacked.curve[-1].strongest.value
    assert clean is not None
    assert last is not None
    assert clean > 0.7
    assert last < 0.5 * clean


def test_more_edits_and_more_searches_never_help_the_model(attacked: TextAttackResult) -> None:
    strongest = [attacked.clean, *(at.strongest for at in attacked.curve)]
    values = [each.value or 0.0 for each in strongest]
    assert values == sorted(values, reverse=True)
    assert [at.edits for at in attacked.curve] == list(TEXT_EDITS)
    for at in attacked.curve:
        assert (at.strongest.value or 0.0) <= (at.greedy.value or 0.0)
    for family in attacked.families:
        assert (family.one.value or 0.0) >= (attacked.curve[0].strongest.value or 0.0)
        assert (family.most.value or 0.0) >= (attacked.curve[-1].strongest.value or 0.0)
    assert (attacked.beam_queries or 0) > (attacked.greedy_queries or 0) > 0


def test_no_attack_crosses_the_certificate(attacked: TextAttackResult) -> None:
    assert attacked.within is not None
    assert attacked.within.passed
    certified = [at.certified.value or 0.0 for at in attacked.tokens if at.certified]
    accuracies = [at.accuracy.value or 0.0 for at in attacked.tokens]
    assert len(certified) == len(accuracies)
    assert all(proved <= found for proved, found in zip(certified, accuracies, strict=True))
    assert certified[0] > 0  # or nothing was tested


def test_a_certificate_that_promises_too_much_is_found_out(
    words_run: Run, tickets_read: Documents
) -> None:
    certifier = words_run.edit_certifier
    assert certifier is not None
    lying = replace(words_run)
    of_radii = certifier.radii

    class Lying:
        @staticmethod
        def radii(encoding):  # type: ignore[no-untyped-def]
            return replace(of_radii(encoding), edits=99)

    lying.__dict__["edit_certifier"] = Lying()
    result = text_attacks(lying, tickets_read, 4)
    assert result.within is not None
    assert not result.within.passed
    assert not result.valid


def test_without_a_certificate_none_is_shown(run: Run, documents: Documents) -> None:
    result = text_attacks(run, documents, 2)
    assert result.within is None
    assert all(at.certified is None for at in result.tokens)
    assert "neighbouring words" not in {family.name for family in result.families}


def test_nothing_of_the_texts_is_in_the_result(
    attacked: TextAttackResult, tickets_read: Documents
) -> None:
    said = json.dumps(asdict(attacked)).casefold()
    words = {w for text in tickets_read.data.records for w in text.casefold().split() if len(w) > 7}
    assert not [word for word in words if word in said]


def test_a_text_that_the_tokenizer_cuts_is_compared_whole(words_run: Run) -> None:
    data = Texts("long", ("word " * 120 + "end",), (0,), words_run.label_names)
    documents = prepare(words_run.modality, data, [()])
    label = int(words_run.model(*pad_batch(documents.samples, 0)).argmax())
    documents = replace(documents, data=replace(data, labels=(label,)))
    result = text_attacks(words_run, documents, 1)
    assert result.within is not None
    assert result.within.passed
