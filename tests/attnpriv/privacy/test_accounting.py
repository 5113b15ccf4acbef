"""The accountants against dp-accounting, a closed form, and published figures."""

from __future__ import annotations

import itertools
import math
import re

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from attnpriv.config import Accountant
from attnpriv.errors import InputError
from attnpriv.privacy import epsilon_spent, noise_multiplier_for
from attnpriv.privacy.accounting import steps_within

GRID = list(itertools.product((0.8, 1.5, 4.0), (0.004, 0.05, 0.25), (1, 100, 1000)))


def reference(noise_multiplier: float, delta: float, sample_rate: float, steps: int) -> float:
    event = dp_accounting.PoissonSampledDpEvent(
        sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return float(PLDAccountant().compose(event, steps).get_epsilon(delta))


@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), GRID)
def test_prv_agrees_with_dp_accounting_and_rdp_is_no_tighter(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    ours = epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps)
    theirs = reference(noise_multiplier, 1e-5, sample_rate, steps)
    # Ours is an upper bound by construction, at most two error bars above the other library's.
    assert theirs - 0.001 * max(1.0, theirs) <= ours <= theirs + 0.021
    assert ours <= epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps, "rdp") + 0.021


def test_full_batches_agree_with_the_closed_form_of_the_gaussian() -> None:
    """Balle and Wang 2018: delta of a Gaussian mechanism with mu = sqrt(steps)/sigma."""
    mu = math.sqrt(10) / 4.0

    def delta(epsilon: float) -> float:
        return float(
            norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu)
        )

    exact = brentq(lambda epsilon: delta(epsilon) - 1e-5, 0.1, 20)
    assert exact <= epsilon_spent(4.0, 1e-5, 1.0, 10) <= exact + 0.021


def test_published_noise_multipliers() -> None:
    rows = 67349
    call = (3.0, rows**-1.1, 1024 / rows, 657)
    assert noise_multiplier_for(*call) == pytest.approx(0.918, abs=5e-4)
    assert noise_multiplier_for(*call, accountant="rdp") == pytest.approx(0.972, abs=2e-3)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("epsilon", [0.05, 1.0, 3.0, 20.0])
def test_noise_multiplier_meets_the_target_and_hardly_less_would(
    accountant: str, epsilon: float
) -> None:
    schedule = (1e-5, 0.1, 50)
    noise = noise_multiplier_for(epsilon, *schedule, accountant)  # type: ignore[arg-type]
    spent = epsilon_spent(noise, *schedule, accountant)  # type: ignore[arg-type]
    assert spent <= epsilon
    assert epsilon_spent(noise * 0.97, *schedule, accountant) > epsilon  # type: ignore[arg-type]


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize(("noise", "sample_rate"), [(0.7, 0.01), (1.5, 0.125), (4.0, 1.0)])
@pytest.mark.parametrize("most", [1, 17, 300])
def test_steps_within_epsilon_are_as_many_as_fit(
    accountant: Accountant, noise: float, sample_rate: float, most: int
) -> None:
    steps = steps_within(3.0, noise, 1e-5, sample_rate, most, accountant)
    assert 1 <= steps <= most
    assert epsilon_spent(noise, 1e-5, sample_rate, steps, accountant) <= 3.0
    if steps < most:
        assert epsilon_spent(noise, 1e-5, sample_rate, steps + 1, accountant) > 3.0


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
@pytest.mark.parametrize("epsilon", [0.05, 7.0])
@pytest.mark.parametrize("sample_rate", [0.01, 1.0])
def test_the_noise_that_is_named_where_one_step_is_too_expensive_would_do(
    accountant: Accountant, epsilon: float, sample_rate: float
) -> None:
    call = (1e-5, sample_rate, 100, accountant)
    with pytest.raises(InputError, match="one step .* spends more") as refused:
        steps_within(epsilon, 0.1, *call)
    found = re.search(r"a noise multiplier of at least ([\d.]+)", str(refused.value))
    assert found
    assert steps_within(epsilon, float(found.group(1)), *call) >= 1
    with pytest.raises(InputError, match="one step .* spends more"):
        steps_within(epsilon, 0.95 * float(found.group(1)), *call)


def test_epsilon_grows_with_steps_and_falls_with_noise() -> None:
    by_steps = [epsilon_spent(1.0, 1e-5, 0.05, steps) for steps in (0, 1, 10, 100)]
    assert by_steps[0] == 0.0
    assert by_steps == sorted(by_steps)
    by_noise = [epsilon_spent(noise, 1e-5, 0.05, 10) for noise in (0.0, 0.3, 1.0, 3.0, 300.0)]
    assert by_noise[0] == math.inf
    assert by_noise == sorted(by_noise, reverse=True)
    assert by_noise[-1] >= 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: epsilon_spent(-1, 1e-5, 0.1, 1),
        lambda: epsilon_spent(math.nan, 1e-5, 0.1, 1),
        lambda: epsilon_spent(1, 0, 0.1, 1),
        lambda: epsilon_spent(1, 1e-5, 0, 1),
        lambda: epsilon_spent(1, 1e-5, 1.1, 1),
        lambda: epsilon_spent(1, 1e-5, 0.1, -1),
        lambda: epsilon_spent(1, 1e-5, 0.1, 1, "gdp"),  # type: ignore[arg-type]
        lambda: noise_multiplier_for(0, 1e-5, 0.1, 1),
        lambda: noise_multiplier_for(math.nan, 1e-5, 0.1, 1),
        lambda: noise_multiplier_for(1, 1e-5, 0.1, 0),
    ],
)
def test_values_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(InputError, match="expected"):
        call()  # type: ignore[operator]


def test_an_unreachable_target_says_what_would_help() -> None:
    with pytest.raises(InputError, match="cannot be reached in 1000000 steps.*fewer steps"):
        noise_multiplier_for(1e-4, 1e-5, 1.0, 1_000_000, "rdp")
