"""Reading tokens out of vectors and maps: exact ranks, both controls, and a real model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attnpriv.audit.documents import Documents
from attnpriv.audit.leakage import inversion
from attnpriv.audit.leakage.explained import attribution_places, explain, map_places
from attnpriv.audit.leakage.guessing import (
    NEVER,
    Hits,
    Tokens,
    guess_places,
    guess_texts,
    ranks_among_absent,
)
from attnpriv.audit.leakage.inversion import (
    NAMES,
    InversionResult,
    Record,
    measure_inversion,
)
from attnpriv.audit.leakage.record_gradients import Seen, gradient_of, noised, read
from attnpriv.audit.subject import Answers, AuditOptions, Rows, Subject
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import Run, load_run

DRAWS = {"resamples": 100, "seed": 0}


def made_up(count: int = 60, leak: float = 0.0) -> list[Record]:
    """Texts of 5 to 9 of 40 tokens; maps and vectors that tell them by as much, and else noise."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(40, 12))
    records = []
    for _ in range(count):
        ids = rng.choice(40, rng.integers(5, 10), p=np.arange(40, 0, -1) / 820).astype(np.int64)
        noise = rng.normal(size=(len(ids), 12))
        maps = leak * codes[ids] + noise
        types = frozenset({"EMAIL"} if rng.random() < 0.5 else ())
        outline = noise[0, :4] + 4 * leak * len(types)
        records.append(
            Record(ids, ids % 3 == 0, maps.mean(0), maps, noise[:, :4], noise[0], outline, types, 0)
        )
    return records


def measure(records: Sequence[Record]) -> InversionResult:
    """With gradients of word vectors that show the text's tokens, and others that are noise."""
    rng = np.random.default_rng(1)

    def gradients(number: int) -> tuple[Seen, Seen | None]:
        rows = np.isin(np.arange(40), records[number].ids).astype(np.float64)
        return Seen(rows, np.zeros(12)), Seen(rng.random(40), np.zeros(12))

    return measure_inversion(records, gradients, **DRAWS)


def test_what_tells_tokens_apart_is_read_and_noise_is_not() -> None:
    found = measure(made_up(leak=3.0))
    assert found.valid
    assert found.judgement.verdict == "FOUND"
    assert found.gravest == "attention"
    assert (found.attention.recovered.top10.low or 0) > 0.9
    assert (found.attention.recovered.sensitive_top10.low or 0) > 0.9
    assert (found.attention.top1_gain.low or 0) > 0.3
    assert found.pooled.judgement.verdict == "FOUND"
    assert found.attributions.judgement.verdict == "NOT FOUND"
    assert (found.fitted, found.documents) == (30, 30)
    assert 0.95 < found.known < 1


def test_nothing_is_read_from_noise() -> None:
    found = measure(made_up(leak=0.0))
    assert found.valid
    assert [getattr(found, name).judgement.verdict for name in NAMES] == ["NOT FOUND"] * 3
    gain = found.attention.recovered.top10.value - found.attention.guesser.top10.value  # type: ignore[operator]
    assert found.attention.top10_gain.value == pytest.approx(gain)


def test_texts_without_personal_data_have_no_shares_of_it() -> None:
    records = [replace(each, sensitive=each.ids < 0) for each in made_up()]
    found = measure(records)
    assert found.sensitive_tokens == 0
    assert found.pooled.recovered.sensitive_top1.value is None


def test_too_few_texts_are_named() -> None:
    with pytest.raises(InputError, match="at least 8 texts, got 7"):
        measure(made_up(7))


def test_the_blind_guesser_names_the_most_frequent_tokens() -> None:
    known = [np.array([7, 7, 7, 4]), np.array([4, 7, 9])]
    asked = [np.array([7, 4, 9, 5])]
    places = [np.zeros((4, 0)), np.zeros((3, 0))]
    (ranks,) = guess_places(places, known, [np.zeros((4, 0))], asked)
    assert ranks.tolist() == [0, 1, 2, NEVER]
    (among,) = guess_texts(np.zeros((2, 0)), known, np.zeros((1, 0)), [np.array([9])])
    assert among.tolist() == [2]


def test_tokens_of_the_text_do_not_stand_in_the_way_of_each_other() -> None:
    scores = np.array([0.9, 0.1, 0.8, 0.8, 0.3])
    assert ranks_among_absent(scores, np.array([1, 2, 4, -1])).tolist() == [2, 1, 2, NEVER]
    assert ranks_among_absent(scores, np.array([0, 3])).tolist() == [0, 1]


def test_hits_count_tokens_and_sensitive_ones_apart() -> None:
    hits = Hits.of(
        [np.array([0, 9, 10]), np.array([3])],
        [np.array([True, False, True]), np.array([False])],
    )
    assert hits.counts.tolist() == [[1, 2, 1, 1], [0, 1, 0, 0]]
    assert hits.sizes.tolist() == [[3, 2], [1, 0]]
    found = hits.recovered(50, seed=0)
    assert (found.top1.value, found.top10.value) == (0.25, 0.75)
    assert (found.sensitive_top1.value, found.sensitive_top10.value) == (0.5, 0.5)
    gains, drawn = hits.above(hits, 50, seed=0)
    assert not gains.any()
    assert not drawn.any()


def test_known_tokens_have_their_places() -> None:
    tokens = Tokens([np.array([8, 3]), np.array([3, 5])])
    assert tokens.columns(np.array([3, 5, 8, 4, 99])).tolist() == [0, 1, 2, -1, -1]
    rows = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert tokens.sums(np.array([3, 8, 3]), rows).tolist() == [[5, 0, 2], [50, 0, 20]]


def test_places_are_those_of_the_tokens(model: TextClassifier, documents: Documents) -> None:
    seen = explain(model, documents, 5, target=0)
    maps, scores = map_places(seen), attribution_places(seen)
    count = int(seen.content.sum())
    assert maps.shape == (count, 2 * 3 * 5)
    assert scores.shape == (count, 4)
    assert scores[:, 1].sum() == pytest.approx(1)
    assert sorted(scores[:, 2] * count) == pytest.approx(range(count))
    received = seen.weights.flatten(0, 1).mean(1)[:, seen.content] * len(seen.content)
    assert np.exp(maps[:, :6]) == pytest.approx(received.T.numpy())


def test_gradients_of_word_vectors_are_read_and_noise_is_not() -> None:
    found = measure(made_up())
    assert found.gradients_of == "word vectors"
    assert found.gradients.recovered.top1.value == 1.0
    assert found.gradients.judgement.verdict == "FOUND"
    assert found.noised_gradients is not None
    assert found.noised_gradients.judgement.verdict == "NOT FOUND"


def test_a_type_that_shows_is_guessed_and_one_that_does_not_is_not() -> None:
    found = measure(made_up(leak=3.0)).attributes
    assert found.valid
    verdicts = {each.source: each.judgement.verdict for each in found.guesses}
    assert verdicts == {
        "pooled": "NOT FOUND", "attention": "NOT FOUND", "attributions": "FOUND"
    }  # fmt: skip
    last = found.guesses[-1]
    assert (last.entity_type, last.accuracy.value) == ("EMAIL", 1.0)
    assert last.gain.value == pytest.approx(1 - last.by_answer.value)
    assert measure(made_up()).attributes.judgement.verdict == "NOT FOUND"


def test_a_type_that_the_answer_gives_away_is_not_guessed() -> None:
    records = [replace(each, answer=len(each.types)) for each in made_up(leak=3.0)]
    assert "too little to gain" in measure(records).attributes.not_run


@pytest.mark.parametrize("whole", [True, False])
def test_the_gradient_of_a_record_shows_its_tokens_or_its_vector(
    model: TextClassifier, documents: Documents, whole: bool
) -> None:
    inputs, ids = documents.inputs([3]), np.array(documents.samples[3].ids)
    content = documents.content(3)
    gradient = gradient_of(model, inputs, 1, whole=whole)
    seen = read(gradient, ids[~content])
    pooled = model.run(model.embed(inputs.values), inputs.mask).features[0]
    assert np.allclose(seen.vector, pooled, atol=1e-4)
    assert (seen.rows is None) == (not whole)
    if seen.rows is not None:
        assert {*np.flatnonzero(seen.rows > 0).tolist()} == {*ids[content].tolist()}
    assert not any(weight.requires_grad for weight in model.parameters())


def test_noise_has_its_deviation_and_the_gradient_its_norm() -> None:
    gradient = {
        "head.weight": torch.full((200, 300), 3.0), "head.bias": torch.zeros(200)
    }  # fmt: skip
    clipped = noised(gradient, 0.5, 0.0, [1])["head.weight"]
    assert clipped.norm().item() == pytest.approx(0.5, rel=1e-4)
    noise = noised(gradient, 0.5, 4.0, [1])["head.weight"] - clipped
    assert noise.std().item() == pytest.approx(2.0, rel=0.02)
    again = noised(gradient, 0.5, 4.0, [1])["head.weight"] - clipped
    assert torch.equal(noise, again)


def test_a_model_with_sharp_attention_gives_its_texts_away(
    tiny_run: Path, run: Run, tickets: Dataset
) -> None:
    rows = Rows(None, tuple(range(60)), frozenset())
    spans = dict(enumerate(tickets.spans or ()))
    options = AuditOptions(documents=60, resamples=100)
    sharp = replace(load_run(tiny_run), model=run.model, modality=run.modality)
    subject = Subject(sharp, tickets, rows, spans, options)
    answers = Answers(np.eye(len(tickets.label_names))[[0] * 60], np.zeros((0, 2)))
    done: list[tuple[int, int]] = []
    found = inversion.run(subject, answers, lambda *at: done.append(at), {})
    assert done[-1] == (60, 60)
    assert found.valid
    assert found.attention.judgement.verdict == "FOUND"
    assert found.sensitive_tokens > 50
    assert found.gradients_of == "word vectors"
    assert found.gradients.recovered.top1.value == 1.0
    assert found.noised_gradients is None
