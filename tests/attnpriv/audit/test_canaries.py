from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from attnpriv.audit.leakage.canaries import (
    LOSS,
    MARGIN,
    WHITE_BOX,
    CanariesResult,
    Scored,
    measure_canaries,
)
from attnpriv.verdicts import Claim, make_claim

MUS = {1.0: 0.2679, 3.0: 0.7187, 8.0: 1.666}  # of Gaussians with these ε at δ = 1e-5


def _claim(epsilon: float) -> Claim:
    mu, epsilons = MUS[epsilon], np.linspace(0, 12, 120)
    deltas = norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons) * norm.cdf(-mu / 2 - epsilons / mu)
    pairs = [(e, d) for e, d in zip(epsilons.tolist(), deltas.tolist(), strict=True) if d > 1e-12]
    return make_claim(epsilon, 1e-5, "a Gaussian", [(epsilon, 1e-5), *pairs])


def _scored(mu: float, canaries: int, seed: int, name: str = WHITE_BOX) -> Scored:
    """A perfect attack on a Gaussian; on no noise at all, if mu is infinite."""
    rng = np.random.default_rng(seed)
    coins = rng.random(canaries) < 0.5
    if math.isinf(mu):
        return Scored(name, coins, coins.astype(float))
    return Scored(name, coins, rng.normal(size=canaries) + mu * coins)


def _bounds(epsilon: float, canaries: int) -> list[CanariesResult]:
    claim = _claim(epsilon)
    return [measure_canaries([_scored(MUS[epsilon], canaries, s)], claim) for s in range(3)]


@pytest.mark.parametrize(
    ("epsilon", "canaries", "least"),
    [(3.0, 1000, 1.1), (3.0, 5000, 1.45), (8.0, 1000, 3.3), (8.0, 5000, 4.0)],
)
def test_a_perfect_attack_comes_near_its_ceiling_and_stays_within_the_claim(
    epsilon: float, canaries: int, least: float
) -> None:
    found = _bounds(epsilon, canaries)
    assert {each.judgement.verdict for each in found} == {"WITHIN THE CLAIM"}
    assert all(each.valid and each.epsilon < epsilon for each in found)
    assert np.mean([each.epsilon for each in found]) > least
    for each in found:
        assert each.ceiling == pytest.approx(each.epsilon, abs=1.3)
        assert each.attacks[0].epsilon < each.epsilon


def test_a_small_epsilon_needs_more_canaries() -> None:
    found = _bounds(1.0, 1000)
    assert {each.judgement.verdict for each in found} == {"INCONCLUSIVE"}
    assert all((each.attacks[0].power or 0.0) < 0.8 for each in found)
    assert all(each.epsilon < 1.0 for each in found)


@pytest.mark.parametrize("epsilon", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("canaries", [1000, 5000])
def test_no_noise_contradicts_every_claim(epsilon: float, canaries: int) -> None:
    found = measure_canaries([_scored(math.inf, canaries, 7)], _claim(epsilon))
    assert found.judgement.verdict == "BEYOND THE CLAIM"


def test_half_the_noise_is_noticed_as_often_as_is_said() -> None:
    claim, audits = _claim(3.0), 12
    found = [measure_canaries([_scored(2 * MUS[3.0], 1000, s)], claim) for s in range(audits)]
    said = found[0].attacks[0].power or 0.0
    noticed = sum(each.judgement.verdict == "BEYOND THE CLAIM" for each in found) / audits
    assert said >= 0.8
    assert abs(noticed - said) < 4 * math.sqrt(said * (1 - said) / audits) + 1 / audits


def test_random_scores_win_nothing() -> None:
    for seed in range(5):
        attacks = [_scored(0.0, 400, 10 * seed + i, name) for i, name in enumerate((MARGIN, LOSS))]
        assert measure_canaries(attacks, _claim(8.0)).judgement.verdict == "INCONCLUSIVE"
        without = measure_canaries(attacks)
        assert without.valid
        assert without.judgement.verdict == "NOT FOUND"
        assert without.epsilon < 0.1, "95 % of such bounds are 0"


def test_without_a_claim_what_is_found_is_bad_news() -> None:
    found = measure_canaries([_scored(3.0, 300, 1)])
    assert found.judgement.verdict == "FOUND"
    assert found.epsilon > 1
    assert found.attacks[0].power is None


def test_the_number_of_guesses_does_not_depend_on_the_scores() -> None:
    made = {
        measure_canaries([_scored(mu, 1000, seed)], _claim(3.0)).attacks[0].guesses
        for seed, mu in enumerate((0.0, 0.7, 3.0, math.inf))
    }
    assert len(made) == 1


def test_several_attacks_share_one_chance_of_error() -> None:
    strong, claim = _scored(MUS[3.0], 5000, 3), _claim(3.0)
    alone = measure_canaries([strong], claim)
    beside = measure_canaries([strong, _scored(0.0, 200, 4, LOSS)], claim)
    assert beside.attacks[0] == replace(alone.attacks[0], power=beside.attacks[0].power)
    figures = alone.judgement.figures[0], beside.judgement.figures[0]
    assert figures[1].chance > figures[0].chance
    assert (figures[1].allowed or 0.0) > (figures[0].allowed or 0.0)


def test_few_canaries_are_no_result() -> None:
    found = measure_canaries([_scored(math.inf, 8, 0)], _claim(3.0))
    assert not found.positive.passed
    assert not found.valid
    assert found.judgement.verdict == "INCONCLUSIVE"


def test_few_texts_do_not_make_the_rest_invalid() -> None:
    attacks = [_scored(MUS[8.0], 250, 1), *(_scored(0.0, 20, 2, name) for name in (MARGIN, LOSS))]
    for claim in (_claim(8.0), None):
        found = measure_canaries(attacks, claim)
        assert found.valid
        assert found.epsilon > 1
        assert found.attacks[1].guesses >= (8 if claim else 4)


def test_every_canary_may_be_in() -> None:
    coins = np.ones(200, dtype=bool)
    found = measure_canaries([replace(_scored(0.0, 200, 1), coins=coins)], _claim(3.0))
    assert found.epsilon == 0.0, "half of the guesses are that one was not in"
