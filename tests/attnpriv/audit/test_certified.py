"""Certified accuracy against exhaustive search, and controls that notice a wrong certificate."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch

from attnpriv.audit.certified import certified_accuracy, certified_shares
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.robustness import EDITS
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Texts
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.edits import EditCertifier, EditRadii
from attnpriv.models.words import WordsClassifier

VOCABULARY, CLASSES = 12, 3
TEXTS = ("one two three", "two two", "four", "", "five six seven eight", "nine one five two")


@pytest.fixture(scope="module")
def model() -> WordsClassifier:
    torch.manual_seed(5)
    config = ModelConfig(
        encoder="words",
        vocab_size=VOCABULARY,
        dim=5,
        layers=1,
        heads=1,
        hidden_dim=1,
        max_length=13,
        num_labels=CLASSES,
        attention=AttentionConfig(clip=1.0),
        isolated=True,
    )
    model = WordsClassifier(config)
    rows = torch.randn(VOCABULARY, 5)
    model.words.weight.data.copy_(torch.nn.functional.normalize(rows, dim=-1))
    for parameter in model.fast_parameters():
        parameter.data.normal_(std=0.7)
    return model.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def answered(model: WordsClassifier) -> Documents:
    """Documents whose labels are what the model answers."""
    data = Texts("made", TEXTS, (0,) * len(TEXTS), ("a", "b", "c"))
    documents = prepare(Text(HashTokenizer(VOCABULARY), 13), data, [()] * len(TEXTS))
    labels = [_answers(model, [each.ids]).pop() for each in documents.samples]
    return replace(documents, data=replace(data, labels=tuple(labels)))


def _answers(model: WordsClassifier, texts: list[tuple[int, ...]]) -> set[int]:
    ids = torch.tensor(texts)
    return set(model(ids, torch.ones_like(ids, dtype=torch.bool)).argmax(1).tolist())


def _substituted(ids: tuple[int, ...], count: int) -> list[tuple[int, ...]]:
    """Every text with ``count`` tokens substituted, but for the first and the last."""
    found = []
    for places in itertools.combinations(range(1, len(ids) - 1), count):
        for words in itertools.product(range(VOCABULARY), repeat=count):
            changed = list(ids)
            for place, word in zip(places, words, strict=True):
                changed[place] = word
            found.append(tuple(changed))
    return found


def test_the_shares_are_those_of_an_exhaustive_search(
    model: WordsClassifier, answered: Documents
) -> None:
    result = certified_accuracy(model, EditCertifier(model), answered)
    for share in result.of_right[:2]:
        standing = 0
        for encoding, label in zip(answered.samples, answered.data.labels, strict=True):
            count = min(share.edits, encoding.size - 2)
            edited = _substituted(encoding.ids, count)
            # A text of fewer tokens withstands as many substitutions as it has tokens.
            standing += share.edits == count and _answers(model, edited) == {label}
        assert share.substitutions.value == pytest.approx(standing / len(TEXTS))
    assert (result.documents, result.right, result.valid) == (6, 6, True)
    assert result.clean.value == 1.0
    assert result.shares == result.of_right


def test_the_controls_notice_a_radius_that_is_too_large_or_too_small(
    model: WordsClassifier, answered: Documents
) -> None:
    for wrong, failed in ((1, "null"), (-1, "positive")):
        certifier = EditCertifier(model)
        of_radii = certifier.radii

        def off(encoding, by=wrong, radii=of_radii):  # type: ignore[no-untyped-def]
            found = radii(encoding)
            return replace(found, substitutions=max(0, found.substitutions + by))

        certifier.radii = off  # type: ignore[method-assign]
        result = certified_accuracy(model, certifier, answered)
        assert not result.valid
        assert not getattr(result, failed).passed


def test_right_answers_that_withstand_are_counted() -> None:
    radii = [EditRadii(label, m, 9, 4, m - 1, False) for label, m in ((0, 3), (1, 1), (0, 5))]
    shares = {each.edits: each for each in certified_shares(radii, [True, True, False], EDITS)}
    assert shares[1].substitutions.value == pytest.approx(2 / 3)
    assert shares[2].substitutions.value == shares[2].any_edits.value == pytest.approx(1 / 3)
    assert shares[5].substitutions.value == shares[5].insertions.value == 0
    assert shares[5].deletions.value == pytest.approx(2 / 3)
