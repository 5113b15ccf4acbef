"""Noise on sums over records: how much of it a total ε asks for, and the draw itself.

::

    Sum, Sum, ... ── plan(epsilon, delta) ──► NoisePlan: mechanism, scales, prices      (public)
    what each record adds, whole numbers ── summed ──► NoisePlan.add ──► noised sums    (released)

Everything is counted in whole numbers: what a record adds, the sums, the scales of the noise, and
the prices in millionths. So no rounding stands between a sum and what its noise was made for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from attnpriv.config import is_number
from attnpriv.errors import InputError
from attnpriv.release.cost import MICRO, MOST_MICRO_EPSILON

GRID = 2**20  # steps of a unit: what a record adds is rounded to them
SIZE = 2**53  # that no sum may reach, for 64 bits to hold it with its noise
ORDERS = 1 + np.geomspace(1e-3, 1e7, 10_000)  # of Rényi divergences, from which the best is taken

Mechanism = Literal["discrete Gaussian", "discrete Laplace"]


@dataclass(frozen=True)
class Sum:
    """A vector of sums over records.

    Attributes:
        name: what it is called.
        width: how many numbers it has.
        l2: the largest Euclidean length of what one record adds, in steps; or of what it changes,
            where one takes the place of another.
        l1: the largest sum of the absolute values of that, in steps.
        wanted: the standard deviation, in steps, of a noise that would be welcome on each number.
            The noise of all sums of a plan is the same multiple of what they want.
    """

    name: str
    width: int
    l2: int
    l1: int
    wanted: float


@dataclass(frozen=True)
class Price:
    """The noise of one sum, and its part of the total.

    Attributes:
        scale: of the noise on each number, in steps: the σ of a Gaussian, the b of a Laplace.
        micro: millionths of ρ under the Gaussian mechanism, of ε under the Laplace mechanism.
    """

    scale: int
    micro: int


@dataclass(frozen=True)
class NoisePlan:
    """Noise for several sums under one ε, fixed before any record is looked at.

    Claim: what ``add`` returns is (ε, δ)-differentially private for any two sets of records whose
    sums differ by no more than each ``Sum`` says, ``micro_epsilon`` being ε in millionths: sets of
    which one has a record more, or one record another, as the sums were made. The discrete Laplace
    mechanism has δ = 0: it adds noise of scale b at a price of ``l1/b``, and prices add up. The
    discrete Gaussian mechanism is zCDP with ``ρ = l2²/2σ²`` (Canonne, Kamath and Steinke 2020,
    arXiv:2004.00010, theorem 4); the ρ add up, and ``epsilon_of_rho`` of their sum is at most ε.
    Condition: one record moves no sum by more than its ``Sum`` says, and the sums are noised once.
    Not covered: how the bounds were chosen, if they were chosen by looking at the records; how long
    a draw takes.

    Attributes:
        mechanism: one for all sums.
        sums: what is noised.
        prices: one a sum.
        micro_epsilon: the total ε in millionths.
        delta: the total δ; 0 under the Laplace mechanism.
    """

    mechanism: Mechanism
    sums: tuple[Sum, ...]
    prices: tuple[Price, ...]
    micro_epsilon: int
    delta: float

    @property
    def times_wanted(self) -> float:
        """The largest noise in relation to what its sum wanted."""
        return max(self.deviation(each.name) / each.wanted for each in self.sums)

    def deviation(self, name: str) -> float:
        """The standard deviation of the noise on each number of a sum, in steps."""
        price = self._priced(name)[1]
        return price.scale * (math.sqrt(2) if self.mechanism == "discrete Laplace" else 1.0)

    def add(self, sums: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """The sums with their noise, whose bits come from the operating system.

        Args:
            sums: the exact numbers, by name, for all sums of the plan.

        Raises:
            InputError: OpenDP is not installed.
        """
        if sums.keys() != {each.name for each in self.sums}:
            raise ValueError("expected the sums of the plan, got others")
        return {name: self._noised(name, values) for name, values in sums.items()}

    def _noised(self, name: str, values: Sequence[int]) -> list[int]:
        of, price = self._priced(name)
        if len(values) != of.width or any(abs(value) >= SIZE for value in values):
            raise ValueError(f"expected {of.width} whole numbers below 2^53 as {name}")
        noised: list[int] = _measurement(self.mechanism, price.scale)([int(v) for v in values])
        return noised

    def _priced(self, name: str) -> tuple[Sum, Price]:
        found = zip(self.sums, self.prices, strict=True)
        return next((each, price) for each, price in found if each.name == name)


def plan(sums: Sequence[Sum], epsilon: float, delta: float) -> NoisePlan:
    """The mechanism and the scales with which the noise comes nearest to what is wanted.

    Both mechanisms divide the total so that every sum gets the same multiple of the noise that it
    wants. The one with the smaller multiple is taken; that depends on the sums' bounds alone.

    Args:
        sums: what shall be noised.
        epsilon: the total ε, above 0 and at most 20.
        delta: the total δ, from 0 to below 1; with 0 there is only the Laplace mechanism.

    Raises:
        InputError: ε or δ is out of range, or ε is too small to be divided among the sums.
    """
    micro_epsilon = _checked_micro(epsilon, delta)
    plans = [_laplace(sums, micro_epsilon)]
    if delta:
        plans.append(_gaussian(sums, micro_epsilon, delta))
    possible = [each for each in plans if each is not None]
    if not possible:
        raise InputError(f"epsilon {epsilon:g} is too small to be divided among {len(sums)} sums")
    return min(possible, key=lambda each: each.times_wanted)


def epsilon_of_rho(rho: float, delta: float) -> float:
    """The ε at δ of any mechanism that is ρ-zCDP, to within 1e-4 of the least that is known.

    Claim: each order gives an upper bound, so the smallest over some of them is one. Source:
    Canonne, Kamath and Steinke 2020 (arXiv:2004.00010), proposition 12.

    >>> round(epsilon_of_rho(0.02, 1e-4), 3)
    0.674
    """
    bounds = rho * ORDERS + np.log1p(-1 / ORDERS)
    bounds -= (math.log(delta) + np.log(ORDERS)) / (ORDERS - 1)
    return max(0.0, float(bounds.min()))


def micro_rho_within(micro_epsilon: int, delta: float) -> int:
    """The largest ρ in millionths whose ε at δ is at most the given one."""
    low, high = 0, micro_epsilon**2 // (2 * MICRO) + 20 * micro_epsilon
    while low < high:
        middle = (low + high + 1) // 2
        if epsilon_of_rho(middle / MICRO, delta) * MICRO <= micro_epsilon:
            low = middle
        else:
            high = middle - 1
    return low


def _checked_micro(epsilon: float, delta: float) -> int:
    """ε in whole millionths, rounded down."""
    limit = MOST_MICRO_EPSILON // MICRO
    if not (is_number(epsilon) and 1 / MICRO <= epsilon <= limit):
        raise InputError(f"expected epsilon from {1 / MICRO:g} to {limit}, got {epsilon}")
    if not (is_number(delta) and 0 <= delta < 1):
        raise InputError(f"expected delta from 0 to below 1, got {delta}")
    return int(epsilon * MICRO)


def _laplace(sums: Sequence[Sum], micro_epsilon: int) -> NoisePlan | None:
    parts = _divided(micro_epsilon, [each.l1 / each.wanted for each in sums])
    if not all(parts):
        return None
    prices = (
        Price(-(-each.l1 * MICRO // part), part) for each, part in zip(sums, parts, strict=True)
    )
    return NoisePlan("discrete Laplace", tuple(sums), tuple(prices), micro_epsilon, 0.0)


def _gaussian(sums: Sequence[Sum], micro_epsilon: int, delta: float) -> NoisePlan | None:
    total = micro_rho_within(micro_epsilon, delta)
    parts = _divided(total, [(each.l2 / each.wanted) ** 2 for each in sums])
    if not all(parts):
        return None
    prices = (
        Price(_root_up(each.l2**2 * MICRO, 2 * part), part)
        for each, part in zip(sums, parts, strict=True)
    )
    return NoisePlan("discrete Gaussian", tuple(sums), tuple(prices), micro_epsilon, delta)


def _divided(total: int, weights: Sequence[float]) -> list[int]:
    """Whole parts in proportion to the weights, whose sum is at most the total."""
    exact = [Fraction(weight) for weight in weights]
    return [math.floor(total * weight / sum(exact)) for weight in exact]


def _root_up(numerator: int, denominator: int) -> int:
    """The smallest whole number whose square is at least the fraction."""
    return math.isqrt(-(-numerator // denominator) - 1) + 1


def require_noise() -> None:
    """Load what draws noise, so that its absence shows before anything is paid.

    Raises:
        InputError: OpenDP is not installed.
    """
    try:
        from opendp import measurements  # noqa: F401
    except ImportError:
        raise InputError("noise needs OpenDP: pip install 'attnpriv[noise]'") from None


def _measurement(mechanism: Mechanism, scale: int) -> Any:
    """OpenDP's exact sampler, which takes whole numbers and returns them noised."""
    require_noise()
    from opendp import domains, measurements, metrics, mod

    mod.enable_features("contrib")  # where its mechanisms are, by its own rules of vetting
    domain = domains.vector_domain(domains.atom_domain(T="i64"))
    if mechanism == "discrete Laplace":
        return measurements.make_laplace(domain, metrics.l1_distance(T="i64"), float(scale))
    return measurements.make_gaussian(domain, metrics.l2_distance(T="f64"), float(scale))
