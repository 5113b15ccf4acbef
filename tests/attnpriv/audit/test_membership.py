from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from attnpriv.audit.leakage.membership import (
    _overfit,
    _positive_control,
    membership,
    true_label_log_odds,
)
from attnpriv.audit.leakage.scores import score_attack
from attnpriv.errors import InputError
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.privacy.profile import profile_of_steps
from attnpriv.verdicts import Claim, make_claim

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(240, 17))


def claim_of_one_step(noise: float) -> Claim:
    """Of a Gaussian that sees every record once: the optimal attack's scores are 1/σ apart."""
    profile = profile_of_steps(NoisedSteps(noise, 1.0, 1, 1.0), "prv")
    return make_claim(3.0, 1e-5, "one step", profile)


THREE = claim_of_one_step(1.3906)  # ε = 3 at δ = 1e-5, which allows an AUC of 0.69


def _scores(gap: float, members: int = 700, others: int = 1100) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(gap, 1, members), rng.normal(0, 1, others)


def test_a_leak_is_found_and_both_controls_pass() -> None:
    result = membership(*_scores(0.5), FEATURES, classes=3)
    assert result.positive.passed
    assert result.null.passed
    assert result.valid
    assert result.judgement.verdict == "FOUND"
    assert (result.auc.low or 0) > 0.5


def test_what_epsilon_allows_is_no_alarm() -> None:
    within = membership(*_scores(0.3), FEATURES, classes=3, claim=THREE)
    assert within.judgement.verdict == "WITHIN THE CLAIM"
    assert within.judgement.claim is THREE
    assert membership(*_scores(0.0), FEATURES, 3, THREE).judgement.verdict == "CHANCE"


def test_the_best_attack_that_epsilon_allows_is_not_beyond_it() -> None:
    """Its AUC is what the claim allows, so that the interval lies on both sides."""
    assert membership(*_scores(0.719), FEATURES, 3, THREE).judgement.verdict == "INCONCLUSIVE"


def test_a_leaky_model_with_a_false_claim_is_beyond_it() -> None:
    rows = RNG.normal(size=(600, 17))
    labels = RNG.integers(0, 3, 600)
    network = _overfit(rows[:300], labels[:300], seed=0)
    scores = true_label_log_odds(network.predict_proba(rows), labels.tolist())
    for claim, verdict in ((THREE, "BEYOND THE CLAIM"), (None, "FOUND")):
        attack = score_attack(scores[:300], scores[300:], claim)
        assert attack.judgement.verdict == verdict
    strangers = score_attack(scores[300:450], scores[450:], THREE)
    assert strangers.judgement.verdict in ("CHANCE", "INCONCLUSIVE")


def test_a_few_exposed_records_are_beyond_a_claim_that_the_average_keeps() -> None:
    members, others = _scores(0.0)
    members[:80] = 50.0
    attack = score_attack(members, others, THREE)
    verdicts = [each.verdict for each in attack.judgement.figures]
    assert verdicts[0] in ("CHANCE", "WITHIN THE CLAIM")
    assert "BEYOND THE CLAIM" in verdicts[1:]
    assert attack.judgement.verdict == "BEYOND THE CLAIM"


def test_too_few_records_for_a_small_epsilon_are_inconclusive() -> None:
    small = make_claim(0.1, 0.0, "pure", [(0.1, 0.0)])  # allows an AUC of 0.525
    few = score_attack(*_scores(0.0, members=90, others=90), small)
    assert few.judgement.verdict == "INCONCLUSIVE"


def test_a_control_on_few_rows_always_has_two_classes_to_learn() -> None:
    """Of four rows, two are fitted, and they draw the same of two labels every second time."""
    for seed in range(8):
        assert 0 <= _positive_control(FEATURES[:4], 2, seed).measured <= 1


def test_no_leak_is_not_called_private() -> None:
    result = membership(*_scores(0.0), FEATURES, classes=3)
    assert result.judgement.verdict == "NOT FOUND"


def test_a_few_exposed_records_count_though_the_average_is_safe() -> None:
    members, others = _scores(0.0)
    members[:40] = 50.0
    result = membership(members, others, FEATURES, classes=3)
    assert (result.auc.low or 1) < 0.5 or (result.auc.value or 1) < 0.56
    assert (result.tpr[0].tpr.low or 0) > 0.01
    assert result.judgement.verdict == "FOUND"


def test_tpr_equals_counting_and_needs_enough_non_members() -> None:
    members, others = _scores(1.0)
    at_one, at_tenth = membership(members, others, FEATURES, classes=3).tpr
    allowed = np.sort(others)[-12]  # 11 of 1,100 lie above
    assert at_one.tpr.value == (members > allowed).mean()
    assert at_tenth.tpr.value == (members > np.sort(others)[-2]).mean()
    few = membership(members, others[:99], FEATURES, classes=3).tpr
    assert few[0].tpr.value is None
    assert few[0].not_reported == "needs at least 100 non-members, there are 99"
    assert few[1].not_reported == "needs at least 1,000 non-members, there are 99"


@pytest.mark.exhaustive
def test_false_alarms_are_as_rare_as_the_interval_says() -> None:
    rng, alarms = np.random.default_rng(7), 0
    for _ in range(300):
        members, others = rng.normal(size=1200), rng.normal(size=1116)
        alarms += score_attack(members, others, None).judgement.verdict == "FOUND"
    assert alarms <= 15  # 2.5 % is 7.5; against the nominal rates it was one in four


@pytest.mark.exhaustive
def test_the_best_attack_that_is_allowed_is_rarely_beyond_the_claim() -> None:
    rng, alarms = np.random.default_rng(8), 0
    for _ in range(300):
        members, others = rng.normal(1 / 1.3906, 1, 1200), rng.normal(size=1116)
        alarms += score_attack(members, others, THREE).judgement.verdict == "BEYOND THE CLAIM"
    assert alarms <= 15  # 2.5 % is 7.5


def test_constant_scores_give_one_half() -> None:
    result = membership(np.zeros(200), np.zeros(300), FEATURES, classes=2)
    assert result.auc.value == 0.5
    assert result.tpr[0].tpr.value == 0.0
    assert result.null.passed


def test_a_failed_control_invalidates_the_result() -> None:
    blind = np.ones((240, 17))  # nothing to memorise rows by
    result = membership(*_scores(1.0), blind, classes=3)
    assert not result.positive.passed
    assert not result.valid
    assert result.judgement.verdict == "INCONCLUSIVE"


def test_roc_runs_from_the_left_to_the_corner() -> None:
    roc = np.array(membership(*_scores(0.5), FEATURES, classes=3).roc)
    assert (np.diff(roc, axis=0) >= 0).all()
    assert tuple(roc[-1]) == (1.0, 1.0)
    assert len(roc) <= 101


def test_same_seed_same_result() -> None:
    once, again = (membership(*_scores(0.3), FEATURES, classes=3, seed=4) for _ in range(2))
    assert dataclasses.asdict(once) == dataclasses.asdict(again)


def test_log_odds_tell_confident_rows_apart() -> None:
    probabilities = np.array([[1.0, 1e-9], [1.0, 1e-12], [0.5, 0.5], [0.0, 1.0]])
    odds = true_label_log_odds(probabilities, [0, 0, 0, 0])
    assert odds[1] > odds[0] > odds[2] > odds[3]
    assert odds[2] == 0.0
    assert np.isfinite(odds).all()


@pytest.mark.parametrize("members", [np.array([]), np.array([np.nan])])
def test_bad_input(members: np.ndarray) -> None:
    with pytest.raises(InputError):
        membership(members, np.ones(5), FEATURES, classes=2)
    with pytest.raises(InputError, match="feature rows"):
        membership(np.ones(5), np.ones(5), FEATURES[:3], classes=2)
