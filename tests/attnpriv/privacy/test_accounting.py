"""The accountants against dp-accounting, exact curves, and published figures."""

from __future__ import annotations

import itertools
import math
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import dp_accounting
import mpmath
import numpy as np
import pytest
from dp_accounting.pld import PLDAccountant
from opacus.accountants import PRVAccountant, RDPAccountant

from attnpriv.config import Accountant
from attnpriv.errors import InputError
from attnpriv.privacy import epsilon_spent, noise_multiplier_for
from attnpriv.privacy.accounting import steps_within
from attnpriv.privacy.loss_distribution import epsilon_from_losses

GRID = list(itertools.product((0.8, 1.5, 4.0), (0.004, 0.05, 0.25), (1, 100, 1000)))


def reference(noise_multiplier: float, delta: float, sample_rate: float, steps: int) -> float:
    event = dp_accounting.PoissonSampledDpEvent(
        sample_rate, dp_accounting.GaussianDpEvent(noise_multiplier)
    )
    return float(PLDAccountant().compose(event, steps).get_epsilon(delta))


@pytest.mark.every_value
@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), GRID)
def test_prv_agrees_with_dp_accounting_and_rdp_is_no_tighter(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    ours = epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps)
    theirs = reference(noise_multiplier, 1e-5, sample_rate, steps)
    # Ours is an upper bound by construction, at most two error bars above the other library's.
    assert theirs - 0.001 * max(1.0, theirs) <= ours <= theirs + 0.021
    assert ours <= epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps, "rdp") + 0.021


@pytest.mark.every_pair
@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), GRID)
def test_both_accountants_say_what_those_of_opacus_say_where_rounding_is_small(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    opacus_prv, opacus_rdp = PRVAccountant(), RDPAccountant()
    opacus_prv.history = opacus_rdp.history = [(noise_multiplier, sample_rate, steps)]
    ours = epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps)
    # Both add an error of 0.01 to stay above the truth, and ours a smaller one to a small ε.
    assert ours <= opacus_prv.get_epsilon(delta=1e-5) + 0.001 * max(1.0, ours)
    by_rdp = epsilon_spent(noise_multiplier, 1e-5, sample_rate, steps, "rdp")
    assert by_rdp <= opacus_rdp.get_epsilon(delta=1e-5) + 1e-6


def exact_epsilon(chances: Callable[[mpmath.mpf], list[tuple[Any, Any]]], delta: float) -> float:
    """The ε at which the larger of P(S) − e^ε·Q(S) is δ; S is where P/Q exceeds e^ε."""
    low, high = mpmath.mpf(0), mpmath.mpf(4000)
    for _ in range(50):
        middle = (low + high) / 2
        exceeds = max(p - mpmath.exp(middle) * q for p, q in chances(middle)) > delta
        low, high = (middle, high) if exceeds else (low, middle)
    return float(low)


def gaussian(mu: float) -> Callable[[mpmath.mpf], list[tuple[Any, Any]]]:
    """Balle and Wang 2018."""
    return lambda e: [(mpmath.ncdf(mu / 2 - e / mu), mpmath.ncdf(-mu / 2 - e / mu))]


def one_step(noise: float, rate: float) -> Callable[[mpmath.mpf], list[tuple[Any, Any]]]:
    """A record removed, and a record added."""
    q, s = mpmath.mpf(rate), mpmath.mpf(noise)

    def x(loss: mpmath.mpf) -> mpmath.mpf:
        return s**2 * mpmath.log((mpmath.exp(loss) - 1 + q) / q) + 0.5

    def chances(e: mpmath.mpf) -> list[tuple[Any, Any]]:
        removed = -x(e)
        with_record = (1 - q) * mpmath.ncdf(removed / s) + q * mpmath.ncdf((removed + 1) / s)
        pairs = [(with_record, mpmath.ncdf(removed / s))]
        if e < -mpmath.log1p(-q):
            added = x(-e)
            with_record = (1 - q) * mpmath.ncdf(added / s) + q * mpmath.ncdf((added - 1) / s)
            pairs.append((mpmath.ncdf(added / s), with_record))
        return pairs

    return chances


@pytest.mark.every_value
@pytest.mark.parametrize("delta", [0.3, 1e-5, 1e-13, 1e-250])
@pytest.mark.parametrize(("noise", "steps"), [(0.1, 3), (1.0, 1), (30.0, 10000), (700.0, 500)])
def test_full_batches_spend_what_the_exact_curve_of_the_gaussian_says(
    noise: float, steps: int, delta: float
) -> None:
    with mpmath.workdps(40):
        exact = exact_epsilon(gaussian(math.sqrt(steps) / noise), delta)
    assert exact * (1 - 1e-12) <= epsilon_spent(noise, delta, 1.0, steps) <= exact * (1 + 1e-8)
    composed = epsilon_from_losses(noise, delta, 1.0, steps, at_most=2 * exact)
    assert exact <= composed <= exact * 1.05 + 0.021


@pytest.mark.every_value
@pytest.mark.parametrize("delta", [0.01, 1e-13, 1e-250])
@pytest.mark.parametrize(("noise", "rate"), [(0.5, 0.9), (0.8, 0.02), (3.0, 0.3), (50.0, 0.001)])
def test_one_step_spends_what_its_exact_curve_says(noise: float, rate: float, delta: float) -> None:
    with mpmath.workdps(40):
        exact = exact_epsilon(one_step(noise, rate), delta)
    assert exact <= epsilon_spent(noise, delta, rate, 1) <= exact * 1.05 + 0.021


def test_epsilon_at_a_delta_that_rounding_swamps_in_a_plain_transform() -> None:
    at_1e_13 = epsilon_spent(1.0, 1e-13, 0.005, 10000)
    assert 5.198 <= at_1e_13 <= 5.198 + 0.012
    assert at_1e_13 < epsilon_spent(1.0, 1e-13, 0.005, 10000, "rdp")


def test_published_noise_multipliers() -> None:
    rows = 67349
    call = (3.0, rows**-1.1, 1024 / rows, 657)
    assert noise_multiplier_for(*call) == pytest.approx(0.918, abs=5e-4)
    assert noise_multiplier_for(*call, accountant="rdp") == pytest.approx(0.972, abs=2e-3)


@pytest.mark.every_value
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


@pytest.mark.every_value
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


@pytest.mark.exhaustive
@pytest.mark.every_pair
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


ACCOUNTANTS: tuple[Accountant, ...] = ("prv", "rdp")
BASES = [
    (1.0, 1e-5, 0.05, 30),
    (0.6, 1e-12, 0.9, 3),
    (40.0, 1e-7, 0.01, 2000),
    (1.0, 0.02, 0.01, 5),
]


@pytest.mark.every_value
@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("factor", [1.0001, 3.0, 1000.0])
def test_epsilon_never_falls_with_less_noise_or_delta_or_with_more_steps_or_records(
    base: tuple[float, float, float, int], factor: float, accountant: Accountant
) -> None:
    noise, delta, rate, steps = base
    spent = epsilon_spent(*base, accountant)
    for noise_, delta_, rate_, steps_ in (
        (noise / factor, delta, rate, steps),
        (noise, delta / factor, rate, steps),
        (noise, delta, min(1.0, rate * factor), steps),
        (noise, delta, rate, math.ceil(steps * factor)),
    ):
        assert epsilon_spent(noise_, delta_, rate_, steps_, accountant) >= spent


def test_no_steps_spend_nothing_and_no_noise_spends_everything() -> None:
    assert epsilon_spent(1.0, 1e-5, 0.05, 0) == epsilon_spent(0.0, 1e-5, 0.05, 0) == 0.0
    assert epsilon_spent(0.0, 1e-5, 0.05, 1) == math.inf


EXTREMES = list(
    itertools.product((1e-300, 1e-3, 1e6, 1e300), (5e-324, 1e-9, 1.0), (1, 10**12), (5e-324, 0.999))
)


@pytest.mark.parametrize("accountant", ACCOUNTANTS)
def test_extreme_arguments_have_a_bound(accountant: Accountant) -> None:
    for noise, rate, steps, delta in EXTREMES:
        assert epsilon_spent(noise, delta, rate, steps, accountant) >= 0.0


def test_memory_is_bounded_however_fine_the_losses_would_have_to_be_cut() -> None:
    tracemalloc.start()
    spent = [epsilon_spent(1.0, 1e-5, 0.1, 200_000), epsilon_spent(0.05, 1e-5, 0.5, 90)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(math.isfinite(epsilon) for epsilon in spent)
    assert peak < 400e6


def test_numbers_of_numpy_are_numbers() -> None:
    plain = epsilon_spent(1.5, 1e-5, 0.25, 10)
    numpy = epsilon_spent(np.float32(1.5), np.float64(1e-5), np.float64(0.25), np.int64(10))  # type: ignore[arg-type]
    assert numpy == plain


@pytest.mark.exhaustive
@pytest.mark.parametrize("accountant", ACCOUNTANTS)
@pytest.mark.parametrize(
    "target", [(0.002, 1e-5, 0.25, 100), (3.0, 1e-5, 0.01, 500), (1e5, 1e-5, 0.01, 3)]
)
def test_the_noise_that_is_found_is_enough_and_a_thousandth_less_is_not(
    target: tuple[float, float, float, int], accountant: Accountant
) -> None:
    epsilon, *schedule = target
    noise = noise_multiplier_for(*target, accountant)
    assert epsilon_spent(noise, *schedule, accountant) <= epsilon
    assert epsilon_spent(0.999 * noise, *schedule, accountant) > epsilon


def test_small_targets_take_no_more_noise_than_they_need() -> None:
    assert noise_multiplier_for(0.002, 1e-5, 0.25, 100) < 2545


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
        lambda: epsilon_spent(math.inf, 1e-5, 0.1, 1),
        lambda: epsilon_spent(True, 1e-5, 0.1, 1),
        lambda: epsilon_spent("1", 1e-5, 0.1, 1),  # type: ignore[arg-type]
        lambda: epsilon_spent(1, math.nan, 0.1, 1),
        lambda: epsilon_spent(1, 1e-5, None, 1),  # type: ignore[arg-type]
        lambda: epsilon_spent(1, 1e-5, 0.1, 1.5),  # type: ignore[arg-type]
        lambda: epsilon_spent(1, 1e-5, 0.1, 10**400),
        lambda: epsilon_spent(10**400, 1e-5, 0.1, 1),
        lambda: noise_multiplier_for(10**400, 1e-5, 0.1, 1),
        lambda: noise_multiplier_for(math.inf, 1e-5, 0.1, 1),
        lambda: noise_multiplier_for("3", 1e-5, 0.1, 1),  # type: ignore[arg-type]
        lambda: steps_within(math.nan, 1, 1e-5, 0.1, 1),
        lambda: steps_within(1, 1, 1e-5, 0.1, 0),
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
