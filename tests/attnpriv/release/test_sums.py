"""Noise on sums: its distribution, its price, and what an attacker can prove from draws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from attnpriv.errors import InputError
from attnpriv.privacy.renyi import ORDERS, epsilon_from_rdp
from attnpriv.release.cost import MICRO
from attnpriv.release.sums import (
    Mechanism,
    NoisePlan,
    Price,
    Sum,
    epsilon_of_rho,
    micro_rho_within,
    plan,
)
from tests.attnpriv.release.empirical import epsilon_lower_bound

ONE = Sum("one", 1, l2=1, l1=1, wanted=1.0)
MANY = tuple(replace(ONE, name=f"sum {number}", wanted=1.0 + number % 3) for number in range(11))
MECHANISMS: tuple[Mechanism, ...] = ("discrete Gaussian", "discrete Laplace")


def single(mechanism: Mechanism, scale: int, draws: int) -> NoisePlan:
    """A plan of one sum that draws noise of a scale often at once."""
    wide = replace(ONE, width=draws)
    return NoisePlan(mechanism, (wide,), (Price(scale, 1),), MICRO, 0.0)


def noise(mechanism: Mechanism, scale: int, draws: int) -> np.ndarray:
    return np.array(single(mechanism, scale, draws).add({"one": [0] * draws})["one"])


def mass(mechanism: Mechanism, scale: int, values: np.ndarray) -> np.ndarray:
    """The exact chances of whole numbers, by summing the formula until nothing is left."""
    support = np.arange(-60 * scale, 60 * scale + 1)
    power = {"discrete Gaussian": 2, "discrete Laplace": 1}[mechanism]
    below = {"discrete Gaussian": 2 * scale**2, "discrete Laplace": scale}[mechanism]
    total = np.exp(-(np.abs(support) ** power) / below).sum()
    return np.asarray(np.exp(-(np.abs(values) ** power) / below) / total)


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scale", [1, 3, 11])
def test_small_noise_has_the_exact_chances(mechanism: Mechanism, scale: int) -> None:
    draws = 20_000
    drawn = noise(mechanism, scale, draws)
    inner = np.arange(-3 * scale, 3 * scale + 1)
    expected = mass(mechanism, scale, inner) * draws
    counts = np.array([(drawn == value).sum() for value in inner])
    counts, expected = np.append(counts, draws - counts.sum()), np.append(expected, 0.0)
    expected[-1] = draws - expected.sum()
    # One draw of a million of these would fall below.
    assert chisquare(counts, expected).pvalue > 1e-6


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("scale", [977, 2**20 + 7, 2**31 + 11, 2**40 + 3])
def test_large_noise_has_its_scale_and_no_bias(mechanism: Mechanism, scale: int) -> None:
    draws = 10_000
    drawn = noise(mechanism, scale, draws) / scale
    deviation, kurtosis = {"discrete Gaussian": (1.0, 3.0), "discrete Laplace": (2**0.5, 6.0)}[
        mechanism
    ]
    error = ((kurtosis - 1) / draws) ** 0.5  # of the variance, relative
    assert abs(drawn.mean()) < 5 * deviation / draws**0.5
    assert abs(drawn.var() / deviation**2 - 1) < 5 * error
    # Every remainder of a small number occurs: no steps are left out.
    remainders = np.bincount(noise(mechanism, scale, draws) % 7, minlength=7)
    assert chisquare(remainders).pvalue > 1e-6


def test_equal_sums_get_new_noise_each_time() -> None:
    drawn = single("discrete Gaussian", 2**30, 3)
    assert drawn.add({"one": [0, 0, 0]}) != drawn.add({"one": [0, 0, 0]})


@pytest.mark.parametrize("delta", [1e-9, 1e-6, 1e-4, 4e-4])
@pytest.mark.parametrize("rho", [1e-5, 1e-3, 0.0546, 0.5, 3.0])
def test_the_epsilon_of_zcdp_is_that_of_two_other_accountants(rho: float, delta: float) -> None:
    from opendp import combinators, domains, measurements, metrics, mod

    mod.enable_features("contrib")
    ours = epsilon_of_rho(rho, delta)
    renyi = epsilon_from_rdp(rho * ORDERS, delta, ORDERS)
    gaussian = measurements.make_gaussian(
        domains.atom_domain(T="i64"), metrics.absolute_distance(T="f64"), 1.0
    )
    theirs = combinators.make_zCDP_to_approxDP(gaussian).map(math.sqrt(2 * rho)).epsilon(delta)
    assert ours <= renyi + 1e-9  # its orders are coarser
    assert ours == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.01, 0.3, 1.0, 8.0, 20.0])
@pytest.mark.parametrize("delta", [0.0, 1e-7, 4e-4])
@pytest.mark.parametrize("bounds", [(1, 1), (104_857, 104_857), (2**20, 3 * 2**20)])
def test_the_prices_keep_within_the_total(
    epsilon: float, delta: float, bounds: tuple[int, int]
) -> None:
    sums = tuple(replace(each, l2=bounds[0], l1=bounds[1]) for each in MANY)
    made = plan(sums, epsilon, delta)
    prices = zip(made.sums, made.prices, strict=True)
    if made.mechanism == "discrete Laplace":
        # b of at least l1/ε, in whole numbers
        assert all(price.scale * price.micro >= each.l1 * MICRO for each, price in prices)
        assert sum(price.micro for price in made.prices) <= epsilon * MICRO
    else:
        # σ² of at least l2²/2ρ, in whole numbers
        assert all(2 * price.scale**2 * price.micro >= each.l2**2 * MICRO for each, price in prices)
        total = sum(price.micro for price in made.prices)
        assert epsilon_of_rho(total / MICRO, delta) <= epsilon
        assert total == pytest.approx(micro_rho_within(int(epsilon * MICRO), delta), abs=12)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_opendp_charges_no_more_than_the_price(mechanism: Mechanism) -> None:
    from attnpriv.release.sums import _measurement

    delta = {"discrete Gaussian": 4e-4, "discrete Laplace": 0.0}[mechanism]
    sums = tuple(replace(each, l2=104_857, l1=104_857) for each in MANY)
    made = plan(sums, 1.0, delta)
    assert made.mechanism == mechanism
    for each, price in zip(made.sums, made.prices, strict=True):
        bound = each.l2 if mechanism == "discrete Gaussian" else each.l1
        charged = _measurement(mechanism, price.scale).map(bound)
        assert charged <= price.micro / MICRO * (1 + 1e-12)


def test_few_sums_take_laplace_and_many_take_gaussian() -> None:
    few, many = plan(MANY[:2], 1.0, 4e-4), plan(MANY, 1.0, 4e-4)
    assert (few.mechanism, many.mechanism) == ("discrete Laplace", "discrete Gaussian")
    assert many.times_wanted < plan(MANY, 1.0, 0.0).times_wanted
    assert few.delta == 0


def test_the_noise_is_one_multiple_of_what_is_wanted() -> None:
    sums = tuple(replace(each, l2=10_007, l1=10_007) for each in MANY)
    made = plan(sums, 1.0, 4e-4)
    ratios = [made.deviation(each.name) / each.wanted for each in sums]
    assert max(ratios) / min(ratios) < 1.001


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan, 20.1, 1e-7, True])
def test_nonsense_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError, match="expected epsilon from 1e-06 to 20"):
        plan(MANY, epsilon, 0.0)


@pytest.mark.parametrize("delta", [-1e-9, 1.0, math.nan])
def test_a_delta_that_is_no_probability_is_refused(delta: float) -> None:
    with pytest.raises(InputError, match="expected delta from 0"):
        plan(MANY, 1.0, delta)


def test_an_epsilon_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(InputError, match="too small to be divided among 11 sums"):
        plan(MANY, 1e-6, 0.0)


DRAWS = 30_000


def _proved(mechanism: Mechanism, scale: int, epsilon: float) -> float:
    """What draws prove for two sets of records whose sums differ by 4 steps, the most allowed."""
    apart = 4
    drawn = [noise(mechanism, scale, DRAWS) + shift for shift in (0, apart)]
    edge = 2 * scale
    cells = [np.clip(each, -edge, edge + apart) + edge for each in drawn]
    return epsilon_lower_bound(*(np.digitize(each, np.arange(0, 2 * edge, 4)) for each in cells))


@pytest.mark.exhaustive
@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_draws_prove_no_more_than_what_is_charged_and_nearly_as_much(epsilon: float) -> None:
    price = plan((replace(ONE, l2=4, l1=4),), epsilon, 0.0).prices[0]
    spent = 4 / price.scale  # the scale is a whole number of steps, rounded up
    assert spent <= epsilon
    assert 0.75 * spent < _proved("discrete Laplace", price.scale, epsilon) <= spent


@pytest.mark.exhaustive
def test_halved_noise_is_found() -> None:
    price = plan((replace(ONE, l2=4, l1=4),), 1.0, 0.0).prices[0]
    assert _proved("discrete Laplace", price.scale // 2, 1.0) > 1.0
