from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from attnpriv.audit.leakage import one_run_gaussian_epsilon_lower_bound
from attnpriv.audit.leakage.trade_off import (
    Curve,
    curve_of,
    expected_correct,
    gaussian_curve,
    most_correct,
    refutes,
)
from attnpriv.errors import InputError
from attnpriv.privacy.accounting import epsilon_spent, gaussian_epsilon
from attnpriv.verdicts import Profile, allowed_tpr


def _profile_of_gaussian(mu: float) -> Profile:
    """Many exact pairs of a Gaussian, by the formula of Balle and Wang 2018."""
    epsilons = np.linspace(0, 12, 300)
    deltas = norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons) * norm.cdf(-mu / 2 - epsilons / mu)
    pairs = zip(epsilons.tolist(), deltas.tolist(), strict=True)
    return tuple((epsilon, delta) for epsilon, delta in pairs if delta > 1e-12)


def _as_published(curve: Curve, m: int, r: int, v: int, error: float) -> bool:
    """Algorithm 3 of arXiv:2410.22235 with its arrays."""
    rights, wrongs = [0.0] * (v + 1), [0.0] * (v + 1)
    rights[v], wrongs[v] = error * v / m, error * (r - v) / m
    for i in range(v - 1, -1, -1):
        wrongs[i] = max(wrongs[i + 1], curve(min(1.0, rights[i + 1])))
        rights[i] = rights[i + 1] + i / (r - i) * (wrongs[i] - wrongs[i + 1])
    return rights[0] + wrongs[0] > r / m


@pytest.mark.parametrize(
    ("m", "r", "v", "expected"),
    [(1000, 100, 100, 5.549), (1000, 100, 95, 3.323), (10000, 1000, 900, 2.803)],
)
def test_published_values(m: int, r: int, v: int, expected: float) -> None:
    assert round(one_run_gaussian_epsilon_lower_bound(m, r, v, 1e-5), 3) == expected


@settings(max_examples=60)
@given(
    r=st.integers(1, 60),
    wrong=st.integers(0, 20),
    mu=st.floats(0, 3),
    error=st.sampled_from([0.01, 0.05]),
)
def test_it_is_the_algorithm_of_the_paper(r: int, wrong: int, mu: float, error: float) -> None:
    v, curve = max(0, r - wrong), gaussian_curve(mu)
    assert refutes(curve, 2 * r, r, v, error) == _as_published(curve, 2 * r, r, v, error)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("m", [1, 7, 60])
def test_randomised_response_is_refuted_no_more_often_than_stated(epsilon: float, m: int) -> None:
    """The worst mechanism of pure ε: each coin is told right with chance e^ε / (1 + e^ε)."""
    curve, right = curve_of(((epsilon, 0.0),)), 1 / (1 + math.exp(-epsilon))
    for error in (0.01, 0.05, 0.3):
        most = most_correct(curve, m, m, error)
        assert binom.sf(most, m, right) <= error


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.0])
def test_a_perfect_attack_refutes_a_true_curve_seldom_and_a_false_one_often(mu: float) -> None:
    m, r, error, audits = 400, 80, 0.05, 2000
    rng = np.random.default_rng(5)
    coins = rng.random((audits, m)) < 0.5
    scores = rng.normal(size=coins.shape) + mu * coins
    ranked = np.take_along_axis(coins, scores.argsort(1), 1)
    right = ranked[:, -r // 2 :].sum(1) + (~ranked[:, : r // 2]).sum(1)
    refuted = right > most_correct(gaussian_curve(mu), m, r, error)
    assert refuted.mean() <= error + 3 * math.sqrt(error / audits)
    assert (right > most_correct(gaussian_curve(mu / 4), m, r, error)).mean() > 0.2
    assert right.mean() == pytest.approx(expected_correct(gaussian_curve(mu), m, r), rel=0.01)


def test_a_curve_from_pairs_is_never_refuted_where_the_mechanism_is_not() -> None:
    exact, pairs = gaussian_curve(1.0), curve_of(_profile_of_gaussian(1.0))
    for r in (20, 100, 400):
        most = most_correct(exact, 1000, r, 0.05)
        assert most <= most_correct(pairs, 1000, r, 0.05) <= most + 1


@given(tpr=st.floats(0.001, 0.999))
def test_the_curve_is_the_inverse_of_what_a_claim_allows(tpr: float) -> None:
    profile = ((0.0, 0.3), (0.7, 0.05), (3.0, 1e-5))
    fpr = curve_of(profile)(tpr)
    assert 0 <= fpr <= tpr
    assert allowed_tpr(profile, fpr) >= tpr - 1e-12
    if fpr > 0:
        assert allowed_tpr(profile, fpr) == pytest.approx(tpr)


def test_a_gaussian_has_the_epsilon_of_one_step_on_every_record() -> None:
    assert gaussian_epsilon(1 / 1.5, 1e-5) == pytest.approx(epsilon_spent(1.5, 1e-5, 1.0, 1))


@pytest.mark.parametrize(("r", "v"), [(0, 0), (100, 0), (100, 55), (1, 1)])
def test_guesses_no_better_than_a_coin_prove_nothing(r: int, v: int) -> None:
    assert one_run_gaussian_epsilon_lower_bound(1000, r, v, 1e-5) == 0.0


def test_more_right_guesses_refute_more() -> None:
    bounds = [one_run_gaussian_epsilon_lower_bound(1000, 100, v, 1e-5) for v in range(60, 101, 8)]
    assert bounds == sorted(bounds)
    assert bounds[0] > 0


@pytest.mark.parametrize(
    "arguments",
    [{"correct": 11}, {"guesses": 21}, {"delta": 0.0}, {"delta": 1.0}, {"confidence": 1.0}],
)
def test_bad_input(arguments: dict[str, float]) -> None:
    good = {"canaries": 20, "guesses": 10, "correct": 9, "delta": 1e-5}
    with pytest.raises(InputError, match="expected"):
        one_run_gaussian_epsilon_lower_bound(**{**good, **arguments})  # type: ignore[arg-type]
