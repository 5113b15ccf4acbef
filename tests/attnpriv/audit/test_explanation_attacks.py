"""Membership from explanations: what counts as found, both controls, and exact features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from attnpriv.audit.documents import Documents
from attnpriv.audit.leakage.explained import (
    TO_ITSELF,
    TO_THE_FIRST,
    Explanation,
    attribution_features,
    explain,
    map_features,
)
from attnpriv.audit.leakage.explanation_attacks import (
    NAMES,
    ExplanationAttacksResult,
    Observed,
    explanation_attacks,
)
from attnpriv.audit.leakage.fitting import fitted_scores, fitted_word_scores, half_of
from attnpriv.audit.statistics import auc, resampled_areas
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.verdicts import Claim, make_claim

N = 160  # records of either kind
SMALL = make_claim(0.1, 0.0, "pure", [(0.1, 0.0)])  # allows an AUC of 0.525


def observed(seed: int, loss: float = 0.0, maps: float = 0.0, word: str = "a") -> Observed:
    """Records whose losses, maps and words give them away as far as asked for."""
    rng = np.random.default_rng(seed)
    return Observed(
        tuple(f"{word} {rng.integers(1000)} {rng.integers(1000)}" for _ in range(N)),
        rng.normal(loss, 1, N),
        rng.normal(0, 1, (N, 7)) + maps * (np.arange(7) == 3),
        rng.normal(0, 1, (N, 5)),
    )


def attack(members: Observed, claim: Claim | None = None) -> ExplanationAttacksResult:
    others = observed(2)
    leaky = replace(others, maps=others.maps + 4, attributions=others.attributions + 4)
    return explanation_attacks(members, others, leaky, claim, resamples=400, seed=0)


def test_a_leak_in_the_maps_is_found_and_not_in_the_attributions() -> None:
    found = attack(observed(1, maps=2.0))
    assert found.valid
    assert found.judgement.verdict == "FOUND"
    assert found.attention.judgement.verdict == "FOUND"
    assert found.attributions.judgement.verdict == "NOT FOUND"
    assert (found.attention.above_loss.low or 0) > 0
    assert (found.attention.above_texts.low or 0) > 0
    assert found.attention.p_value == 1 / 401
    assert (found.fitted, found.members, found.non_members) == (N, N // 2, N // 2)


def test_what_the_loss_tells_as_well_is_not_found() -> None:
    """Maps that are the loss once more beat guessing, and still add nothing."""
    members = observed(1, loss=1.5)
    others = observed(2)
    members, others = (replace(each, maps=each.log_odds[:, None]) for each in (members, others))
    leaky = replace(others, maps=others.maps + 4, attributions=others.attributions + 4)
    found = explanation_attacks(members, others, leaky, resamples=400, seed=0)
    assert found.valid
    assert (found.attention.auc.low or 0) > 0.7
    assert found.attention.auc == found.loss.auc
    assert found.attention.p_value == 1.0
    assert found.judgement.verdict == "NOT FOUND"


def test_what_the_texts_tell_as_well_is_not_found_and_breaks_the_split() -> None:
    members = observed(1, maps=2.0, word="b")
    found = attack(members)
    assert found.texts.auc.value == 1.0
    assert not found.split.passed
    assert found.attention.judgement.verdict == "NOT FOUND"
    claimed = attack(members, SMALL)
    assert (claimed.valid, claimed.judgement.verdict) == (False, "INCONCLUSIVE")


def test_a_claim_is_held_against_what_explanations_tell() -> None:
    assert attack(observed(1, maps=2.0), SMALL).judgement.verdict == "BEYOND THE CLAIM"
    large = make_claim(9.0, 0.0, "pure", [(9.0, 0.0)])
    assert attack(observed(1, maps=2.0), large).judgement.verdict == "WITHIN THE CLAIM"
    assert attack(observed(1), large).judgement.verdict == "CHANCE"


@pytest.mark.exhaustive
def test_nothing_is_found_where_there_is_nothing_and_no_control_fails() -> None:
    """Over five draws; each has three attacks, which share an error of 2.5 %."""
    found = [attack(observed(seed)) for seed in range(10, 15)]
    assert all(each.valid for each in found)
    assert {each.judgement.verdict for each in found} == {"NOT FOUND"}


def test_a_leak_that_is_not_planted_fails_the_positive_control() -> None:
    others = observed(2)
    missed = explanation_attacks(observed(1), others, others, resamples=50, seed=0)
    assert (missed.positive.passed, missed.valid) == (False, False)
    assert missed.judgement.verdict == "INCONCLUSIVE"


def test_a_quick_audit_has_records_enough_for_its_controls() -> None:
    members, others = (observed(seed).of(np.arange(N) < 100) for seed in (1, 2))
    leaky = replace(others, maps=others.maps + 4, attributions=others.attributions + 4)
    assert explanation_attacks(members, others, leaky, resamples=50, seed=0).valid


def test_too_few_records_are_named() -> None:
    few = observed(1).of(np.arange(N) < 7)
    with pytest.raises(InputError, match="at least 8 records of either kind, got 7"):
        explanation_attacks(few, observed(2), observed(2), resamples=9, seed=0)


def test_a_halved_group_has_both_halves_and_the_same_ones_again() -> None:
    half = half_of(11, seed=5)
    assert half.sum() == 5
    assert (half == half_of(11, seed=5)).all()
    assert (half != half_of(11, seed=6)).any()


def test_fitted_scores_rank_what_was_not_fitted_to() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 3))
    truth = rows[:, 1] > 0
    scores = fitted_scores(rows[:100], truth[:100], rows[100:])
    assert (auc(scores[truth[100:]], scores[~truth[100:]]).value or 0) > 0.95
    texts = ["we meet today" if own else "CALL 0800 NOW" for own in truth]
    scores = fitted_word_scores(texts[:100], truth[:100], texts[100:])
    assert auc(scores[truth[100:]], scores[~truth[100:]]).value == 1.0


def test_resampled_areas_are_those_of_the_resampled_rows() -> None:
    rng = np.random.default_rng(3)
    positive, negative = rng.integers(0, 4, 7).astype(float), rng.integers(0, 3, 5).astype(float)
    areas = resampled_areas(positive, negative, 3, seed=4)
    counts = np.random.default_rng(4).multinomial(7, np.full(7, 1 / 7), size=3)
    others = np.random.default_rng(5).multinomial(5, np.full(5, 1 / 5), size=3)
    for area, own, other in zip(areas, counts, others, strict=True):
        expected = auc(np.repeat(positive, own), np.repeat(negative, other)).value
        assert area == pytest.approx(expected)


def uniform(length: int) -> Explanation:
    maps = torch.full((2, 3, length, length), 1 / length, dtype=torch.float64)
    content = torch.ones(length, dtype=torch.bool)
    content[[0, -1]] = False
    return Explanation(maps, maps, torch.ones(length, dtype=torch.float64) * content, content)


def test_features_of_uniform_maps_and_attributions_are_known() -> None:
    own, between = np.split(map_features(uniform(5)), [5 * 2 * 3])
    expected = np.tile([1, 1 / 5, 1 / 5, 2 / 5, 0], (6, 1))
    assert np.allclose(own.reshape(5, -1).T, expected)
    assert not between.any()
    assert map_features(uniform(5)).shape == map_features(uniform(11)).shape == (42,)
    found = attribution_features(uniform(5))
    assert found[:6] == pytest.approx([np.log(4), 3, 0, 1, 1 / 3, 1])
    assert found[6:] == pytest.approx([0, 1 / 3])


def test_the_planted_leak_moves_attention_and_attributions_by_its_size() -> None:
    plain = uniform(5)
    leaky = plain.leaky()
    rows = leaky.weights.sum(-1)
    assert torch.allclose(rows, torch.ones_like(rows))
    itself = leaky.weights.diagonal(dim1=-2, dim2=-1)
    assert itself[0, 0, 0] == pytest.approx(0.2 + TO_ITSELF * 0.8)
    assert leaky.scores.tolist() == pytest.approx(
        [0, 1 + TO_THE_FIRST * 2, 1 - TO_THE_FIRST, 1 - TO_THE_FIRST, 0]
    )


def test_an_explanation_is_that_of_the_model(model: TextClassifier, documents: Documents) -> None:
    seen = explain(model, documents, 3, target=1)
    inputs = documents.inputs([3])
    maps = model.run(model.embed(inputs.values), inputs.mask, need_maps=True).self_attention()
    assert torch.allclose(seen.weights.float(), torch.cat(maps), atol=1e-6)
    assert (seen.perturbed - seen.weights).abs().max() > 0.01
    assert seen.content.tolist() == inputs.content[0].tolist()
    assert not seen.scores[~seen.content].any()
    assert len(map_features(seen)) == 2 * 3 * 5 + 3 * 4


def test_all_attacks_share_their_names_with_the_fields_of_the_result() -> None:
    assert {*NAMES} <= ExplanationAttacksResult.__dataclass_fields__.keys()
