"""The curve that a claim allows, against exact formulas and simulated attacks, and its verdicts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.integrate import trapezoid
from scipy.optimize import brentq
from scipy.stats import norm

from attnpriv.errors import InputError
from attnpriv.estimates import Estimate
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.privacy.profile import profile_of, profile_of_steps
from attnpriv.verdicts import (
    MEANINGS,
    Profile,
    allowed_auc,
    allowed_curve,
    allowed_tpr,
    judge,
    make_claim,
)

FPRS = np.concatenate([[0.0], np.geomspace(1e-4, 1, 400)])


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    above = norm.cdf(mu / 2 - epsilon / mu)
    return float(above - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu))


def gaussian_profile(mu: float) -> Profile:
    return tuple((e, gaussian_delta(e, mu)) for e in np.linspace(0, 12, 400))


def rates(profile: Profile) -> np.ndarray:
    return np.array([allowed_tpr(profile, fpr) for fpr in FPRS])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0, 3.0, 8.0])
@pytest.mark.parametrize("delta", [0.0, 1e-5, 0.1])
def test_the_area_is_that_of_the_curve(epsilon: float, delta: float) -> None:
    profile = ((epsilon, delta), (epsilon / 3, min(1.0, delta + 0.15)))
    fine = np.linspace(0, 1, 200_001)
    curve = np.minimum.reduce([allowed_tpr(((e, d),), 0.0) + math.exp(e) * fine for e, d in profile]
                              + [1 - math.exp(-e) * (1 - d - fine) for e, d in profile]
                              + [np.ones_like(fine)])  # fmt: skip
    assert allowed_auc(profile) == pytest.approx(trapezoid(curve, fine), abs=1e-6)
    corners = np.array(allowed_curve(profile))
    assert (np.diff(corners, axis=0) >= -1e-15).all()
    for fpr, tpr in corners:
        assert allowed_tpr(profile, fpr) == pytest.approx(tpr, abs=1e-12)


@pytest.mark.parametrize("epsilon", [0.0, 0.5, 1.0, 3.0, 10.0])
def test_pure_epsilon_has_a_closed_form(epsilon: float) -> None:
    ratio = math.exp(epsilon)
    assert allowed_auc(((epsilon, 0.0),)) == pytest.approx(ratio / (1 + ratio), abs=1e-12)


def test_an_epsilon_of_three_allows_what_its_gaussian_allows() -> None:
    mu = brentq(lambda m: gaussian_delta(3.0, m) - 1e-5, 0.1, 3)
    profile = gaussian_profile(mu)
    exact = norm.cdf(mu / math.sqrt(2))
    assert round(float(exact), 2) == 0.69
    assert exact <= allowed_auc(profile) <= exact + 1e-3
    optimal = norm.cdf(norm.ppf(FPRS) + mu)
    assert (rates(profile) >= optimal - 1e-12).all()
    assert (rates(profile)[FPRS >= 1e-3] <= optimal[FPRS >= 1e-3] * 1.02).all()


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(("noise", "rate"), [(1.39, 1.0), (0.8, 0.2)])
def test_no_optimal_attack_on_one_step_passes_the_curve(
    noise: float, rate: float, accountant: Any
) -> None:
    """The likelihood ratio rises with the released number, so its tails are the optimal tests."""
    profile = profile_of_steps(NoisedSteps(noise, rate, 1, 1.0), accountant)
    threshold = np.linspace(-8, 8, 600)
    fpr = norm.sf(threshold)
    tpr = (1 - rate) * fpr + rate * norm.sf(threshold - 1 / noise)
    allowed = np.array([allowed_tpr(profile, x) for x in fpr])
    assert (allowed >= tpr - 1e-12).all()
    # Adding the record in place of removing it.
    reverse = np.array([allowed_tpr(profile, x) for x in 1 - tpr])
    assert (reverse >= (1 - fpr) - 1e-9).all()
    if accountant == "prv":
        # The bound holds of both neighbours, of which a sampled step favours one.
        assert (allowed - tpr).max() < 0.06


def test_no_optimal_attack_on_many_steps_passes_the_curve() -> None:
    noise, rate, steps, runs = 1.1, 0.3, 6, 40_000
    rng = np.random.default_rng(5)
    profile = profile_of_steps(NoisedSteps(noise, rate, steps, 1.0), "prv")

    def losses(member: bool) -> np.ndarray:
        shift = member * (rng.random((runs, steps)) < rate) / noise
        y = rng.normal(size=(runs, steps)) + shift
        return np.log1p(rate * np.expm1(y / noise - 0.5 / noise**2)).sum(1)

    inside, outside = losses(True), losses(False)
    for threshold in np.quantile(outside, [0.1, 0.5, 0.9, 0.99]):
        fpr, tpr = (outside > threshold).mean(), (inside > threshold).mean()
        slack = 4 * math.sqrt(tpr * (1 - tpr) / runs) + 4 * math.sqrt(fpr * (1 - fpr) / runs)
        allowed = allowed_tpr(profile, fpr)
        assert tpr - slack <= allowed <= tpr + 0.05 + slack


def test_rdp_allows_more_than_the_composed_loss() -> None:
    steps = NoisedSteps(1.1, 0.3, 6, 1.0)
    assert allowed_auc(profile_of_steps(steps, "prv")) < allowed_auc(profile_of_steps(steps, "rdp"))


def test_a_profile_ends_where_nothing_more_is_needed() -> None:
    profile = profile_of(lambda delta: max(0.0, -math.log10(delta) - 1))
    assert profile[0][0] == 0.0
    assert [e for e, _ in profile] == sorted(e for e, _ in profile)
    assert sum(e == 0 for e, _ in profile) == 1


def test_a_vast_epsilon_allows_everything() -> None:
    assert allowed_auc(((1e6, 1e-5),)) == 1.0
    assert allowed_tpr(((1e6, 1e-5),), 0.0) == 1.0


@pytest.mark.parametrize("profile", [[], [(-1.0, 0.1)], [(1.0, 1.5)], [(math.nan, 0.1)]])
def test_a_claim_without_a_usable_pair_is_refused(profile: list[tuple[float, float]]) -> None:
    with pytest.raises(InputError, match="expected pairs"):
        make_claim(1.0, 1e-5, "nothing", profile)


CLAIM = make_claim(1.0, 0.0, "pure", [(1.0, 0.0)])  # its AUC is 0.731
INTERVALS = {
    "CHANCE": (0.45, 0.6),
    "WITHIN THE CLAIM": (0.55, 0.7),
    "BEYOND THE CLAIM": (0.75, 0.9),
    "INCONCLUSIVE": (0.6, 0.8),
}


@pytest.mark.parametrize("verdict", INTERVALS)
def test_the_interval_decides(verdict: str) -> None:
    figure = ("AUC", Estimate(0.5, *INTERVALS[verdict]), 0.5, CLAIM.auc)
    assert judge([figure], CLAIM).verdict == verdict
    assert judge([figure], CLAIM, valid=False).verdict == "INCONCLUSIVE"
    bare = ("AUC", Estimate(0.5, *INTERVALS[verdict]), 0.5, None)
    found = "NOT FOUND" if verdict == "CHANCE" else "FOUND"
    assert judge([bare], None).verdict == found
    assert {verdict, found} <= set(MEANINGS)


def test_another_figure_changes_the_verdict_only_by_a_finding() -> None:
    area = ("AUC", Estimate(0.5, 0.45, 0.6), 0.5, CLAIM.auc)

    def beside(low: float, high: float) -> str:
        return judge([area, ("TPR", Estimate(low, low, high), 0.02, 0.05)], CLAIM).verdict

    assert beside(0.0, 0.04) == "CHANCE"
    assert beside(0.0, 0.3) == "CHANCE", "few records say nothing about a low rate"
    assert beside(0.03, 0.3) == "WITHIN THE CLAIM"
    assert beside(0.06, 0.3) == "BEYOND THE CLAIM"
    assert judge([area], CLAIM, found=True).verdict == "WITHIN THE CLAIM"


def test_an_undefined_figure_is_inconclusive() -> None:
    figure = ("AUC", Estimate(None, None, None), 0.5, CLAIM.auc)
    assert judge([figure], CLAIM).verdict == "INCONCLUSIVE"
