"""The cost of choosing the best run, against dp-accounting and against exact distributions."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
from dp_accounting.dp_event import RepeatAndSelectDpEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon
from scipy.optimize import brentq
from scipy.stats import binom, chisquare, norm

from attnpriv.config import RunDistribution
from attnpriv.errors import InputError
from attnpriv.privacy.selection import (
    ORDERS,
    RunCount,
    epsilon_of_selection,
    noise_for_selection,
    rdp_of_run,
)

SHAPES = {"poisson": math.inf, "geometric": 1.0}
# Above, dp-accounting overflows.
SMALL_ORDERS = ORDERS[ORDERS <= 1024]
WHOLE_ORDERS = np.array([order for order in SMALL_ORDERS if order.is_integer()])
DISTRIBUTIONS: tuple[RunDistribution, ...] = ("poisson", "geometric")
SCHEDULES = ((3.0, 0.25, 30), (8.0, 0.25, 100), (0.8, 0.004, 1000), (6.0, 1.0, 5))
GRID = list(itertools.product(DISTRIBUTIONS, (2.0, 10.0, 40.0), SCHEDULES))


@pytest.mark.every_pair
@pytest.mark.parametrize(("distribution", "mean", "schedule"), GRID)
def test_agrees_with_dp_accounting(
    distribution: RunDistribution, mean: float, schedule: tuple[float, float, int]
) -> None:
    noise, rate, steps = schedule
    run = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), steps
    )
    event = RepeatAndSelectDpEvent(run, mean, SHAPES[distribution])
    # Between whole orders dp-accounting adds up the moduli of an alternating series.
    orders = SMALL_ORDERS if rate == 1 else WHOLE_ORDERS
    oracle = RdpAccountant(list(orders)).compose(event)
    runs, rdp = RunCount(mean, distribution), rdp_of_run([schedule], math.inf, orders)
    for delta in (1e-3, 1e-5, 1e-8):
        theirs = oracle.get_epsilon(delta)
        ours = epsilon_of_selection(runs, rdp, delta, orders)
        # The theorem holds at order 1 too, where dp-accounting knows no bound: it helps few runs.
        if not (distribution == "geometric" and mean == 2.0):
            assert ours >= theirs * (1 - 1e-9)
        assert ours <= theirs * (1 + 1e-8)
        assert epsilon_of_selection(runs, rdp_of_run([schedule], math.inf), delta) <= ours


@pytest.mark.parametrize("schedule", [(3.0, 0.25, 30), (0.8, 0.02, 1000)])
def test_fractional_orders_agree_with_an_integral(schedule: tuple[float, float, int]) -> None:
    noise, rate, steps = schedule
    x = np.linspace(-12 * noise, 12 * noise + 12, 200_001)
    density = norm.logpdf(x, scale=noise)
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * x - 1) / (2 * noise**2))
    orders = np.array([1.1, 1.5, 2.3, 4.7, 10.9])
    moments = [np.trapezoid(np.exp(density + order * ratio), x) for order in orders]
    expected = steps * np.log(moments) / (orders - 1)
    assert rdp_of_run([schedule], math.inf, orders) == pytest.approx(expected, rel=1e-6)


@pytest.mark.every_value
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mean", [1.5, 4.0, 15.0])
@pytest.mark.parametrize("mu", [0.05, 0.3, 1.0])
def test_is_no_less_than_the_exact_epsilon_of_a_worst_case_search(
    distribution: RunDistribution, mean: float, mu: float
) -> None:
    """Runs whose score is all they release: a Gaussian that one record moves by mu deviations."""
    # A(y), the chance that y is the best, is f(P(<= y)) - f(P(< y)) with f the generating function.
    generating: Callable[[np.ndarray], np.ndarray] = {
        "poisson": lambda x: np.exp(mean * (x - 1)),
        "geometric": lambda x: x / (mean - (mean - 1) * x),
    }[distribution]
    grid = np.linspace(-9, 9 + mu, 20001)
    best, best_moved = (
        np.diff(generating(norm.cdf(grid - shift)), prepend=0.0) for shift in (0.0, mu)
    )

    def delta_at(epsilon: float) -> float:
        pairs = ((best, best_moved), (best_moved, best))
        return max(float(np.maximum(p - math.exp(epsilon) * q, 0).sum()) for p, q in pairs)

    delta = 1e-5
    exact = brentq(lambda epsilon: delta_at(epsilon) - delta, 0.0, 20.0)
    rdp = rdp_of_run([], 1 / mu)
    assert exact <= epsilon_of_selection(RunCount(mean, distribution), rdp, delta)


def test_one_run_always_costs_what_a_run_costs() -> None:
    rdp = rdp_of_run([(8.0, 0.25, 100)], math.inf)
    plain = compute_epsilon(ORDERS, rdp, 1e-5)[0]
    once = epsilon_of_selection(RunCount(1, "geometric"), rdp, 1e-5)
    assert once == pytest.approx(plain, rel=1e-12)
    nearly_once = epsilon_of_selection(RunCount(1.0001, "geometric"), rdp, 1e-5)
    assert once < nearly_once < once + 0.001
    # A Poisson number is not always 1, and what it tells has a price.
    assert epsilon_of_selection(RunCount(1), rdp, 1e-5) > once


def test_known_values() -> None:
    """Computed once with dp-accounting 0.6 at these noise multipliers."""
    for distribution, noise in (("poisson", 8.05), ("geometric", 7.35)):
        rdp = rdp_of_run([(noise, 0.25, 100)], math.inf)
        assert epsilon_of_selection(RunCount(10, distribution), rdp, 1e-5) == pytest.approx(
            3.0, abs=5e-3
        )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_epsilon_grows_with_the_mean_and_falls_with_delta(distribution: RunDistribution) -> None:
    rdp = rdp_of_run([(8.0, 0.25, 100)], 4.0)
    means = (1, 1.5, 3, 10, 30, 300)
    by_mean = [epsilon_of_selection(RunCount(m, distribution), rdp, 1e-5) for m in means]
    assert by_mean == sorted(by_mean)
    deltas = (1e-9, 1e-7, 1e-5, 1e-2)
    by_delta = [epsilon_of_selection(RunCount(5, distribution), rdp, d) for d in deltas]
    assert by_delta == sorted(by_delta, reverse=True)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_no_privacy_costs_infinitely_much_and_no_look_at_the_data_next_to_nothing(
    distribution: RunDistribution,
) -> None:
    runs = RunCount(5, distribution)
    assert epsilon_of_selection(runs, rdp_of_run([(0.0, 0.5, 1)], 1.0), 1e-5) == math.inf
    assert epsilon_of_selection(runs, rdp_of_run([(1.0, 0.5, 1)], 0.0), 1e-5) == math.inf
    assert 0 <= epsilon_of_selection(runs, np.zeros_like(ORDERS), 1e-5) < 0.02


def test_a_run_costs_the_most_of_its_candidates_and_its_score_at_each_order() -> None:
    # The first two curves cross: rare batches cost less at low orders and more at high ones.
    rare, frequent = (0.8, 0.01, 100), (8.0, 0.25, 100)
    curves = [rdp_of_run([c], math.inf) for c in (rare, frequent)]
    assert (curves[0] < curves[1])[0]
    assert (curves[0] > curves[1])[-1]
    together = rdp_of_run([rare, frequent], 3.0)
    assert np.array_equal(together, np.maximum.reduce([*curves, ORDERS / 18]))


@pytest.mark.every_value
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("mean", [1.0, 3.0, 10.0])
def test_the_number_of_runs_follows_its_distribution(
    distribution: RunDistribution, mean: float
) -> None:
    stream = random.Random(7)
    drawn = 20_000
    counts = Counter(RunCount(mean, distribution).draw(stream) for _ in range(drawn))
    if distribution == "poisson":
        chances = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(31)]
    else:
        chances = [0.0, *(1 / mean * (1 - 1 / mean) ** (k - 1) for k in range(1, 200))]
        assert counts[0] == 0
    cells = [k for k, chance in enumerate(chances) if chance * drawn >= 10]
    expected = [drawn * chances[k] for k in cells]
    observed = [counts[k] for k in cells]
    # What no cell is for goes into one more.
    rest = drawn - sum(expected)
    if rest >= 5:
        expected, observed = [*expected, rest], [*observed, drawn - sum(observed)]
    if len(expected) > 1:
        scale = sum(observed) / sum(expected)
        assert chisquare(observed, [e * scale for e in expected]).pvalue > 0.001
    else:
        assert observed == [drawn]


def test_a_poisson_number_of_runs_can_be_none() -> None:
    """The caller then releases something that does not depend on the data; it never draws again."""
    stream = random.Random(3)
    none = sum(RunCount(1.0).draw(stream) == 0 for _ in range(2000))
    assert binom.cdf(none, 2000, math.exp(-1)) > 0.001
    assert binom.sf(none, 2000, math.exp(-1)) > 0.001


def test_without_a_stream_the_operating_system_draws() -> None:
    random.seed(0)
    first = [RunCount(1000).draw() for _ in range(4)]
    random.seed(0)
    assert first != [RunCount(1000).draw() for _ in range(4)]


@pytest.mark.every_value
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_the_target_is_met_and_hardly_less_noise_would(
    distribution: RunDistribution, epsilon: float
) -> None:
    runs, schedules = RunCount(10, distribution), [(0.25, 100), (0.01, 300), (0.25, 100)]
    noise = noise_for_selection(epsilon, 1e-5, runs, schedules)

    def spent(factor: float, score_noise: float) -> float:
        triples = [
            (factor * sigma, *schedule)
            for sigma, schedule in zip(noise.noise_multipliers, schedules, strict=True)
        ]
        return epsilon_of_selection(runs, rdp_of_run(triples, score_noise), 1e-5)

    assert noise.epsilon == spent(1.0, noise.score_noise)
    assert noise.epsilon <= epsilon
    assert noise.run_epsilon < noise.epsilon
    assert spent(0.99, noise.score_noise) > epsilon
    assert spent(1.0, 0.99 * noise.score_noise) > epsilon
    # The score is free: without it the search would cost the same.
    assert spent(1.0, math.inf) == pytest.approx(noise.epsilon, rel=0.002)
    assert noise.noise_multipliers[0] == noise.noise_multipliers[2]


def test_an_unreachable_target_says_what_could_be_reached() -> None:
    runs, schedules = RunCount(10), [(0.25, 100)]
    with pytest.raises(InputError, match="epsilon 0.001 cannot be reached.*at least 0.0") as error:
        noise_for_selection(0.001, 1e-5, runs, schedules)
    offered = float(str(error.value).partition("at least ")[2].partition(",")[0])
    assert noise_for_selection(offered, 1e-5, runs, schedules).epsilon <= offered


@pytest.mark.parametrize(
    "call",
    [
        lambda: RunCount(0.9),
        lambda: RunCount(math.nan),
        lambda: RunCount(math.inf),
        lambda: RunCount(5, "logarithmic"),  # type: ignore[arg-type]
        lambda: epsilon_of_selection(RunCount(5), np.ones_like(ORDERS), 0.0),
        lambda: epsilon_of_selection(RunCount(5), np.ones_like(ORDERS), 1.0),
        lambda: noise_for_selection(0.0, 1e-5, RunCount(5), [(0.5, 10)]),
        lambda: noise_for_selection(math.inf, 1e-5, RunCount(5), [(0.5, 10)]),
        lambda: noise_for_selection(1.0, 0.0, RunCount(5), [(0.5, 10)]),
        lambda: noise_for_selection(1.0, 1e-5, RunCount(5), []),
        lambda: noise_for_selection(1.0, 1e-5, RunCount(5), [(0.0, 10)]),
        lambda: noise_for_selection(1.0, 1e-5, RunCount(5), [(0.5, 0)]),
    ],
)
def test_values_out_of_range_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="expected"):
        call()
