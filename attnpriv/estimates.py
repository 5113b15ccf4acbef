"""Numbers with their 95 % intervals: the results and the arithmetic that both audits share.

Plain Python, without numpy and torch, since the client's audit has neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

Z_95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution
SIGNIFICANT = 0.05
# How far float32 rounding can move a score or a probability: another kernel or another batch moves
# a result by a few units in its last place of 2^-23. A draw of a permutation test that falls short
# of the observed value by this much or less counts as equal, which can only raise a p-value.
ROUNDING = 2.0**-20


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where it is undefined (0/0, no documents)."""

    value: float | None
    low: float | None
    high: float | None


UNDEFINED = Estimate(None, None, None)


@dataclass(frozen=True)
class Control:
    """A test of something whose answer is known: what was expected, what came, did it pass."""

    expected: str
    measured: float
    passed: bool


def wilson(successes: int, n: int) -> Estimate:
    """A share with Wilson's 95 % score interval; undefined for n = 0.

    >>> wilson(8, 10)
    Estimate(value=0.8, low=0.4901624715366418, high=0.9433178485456248)

    Source: Newcombe 1998, method 3.
    """
    if n == 0:
        return UNDEFINED
    share, z = successes / n, Z_95
    scale = 2 * (n + z**2)
    centre = (2 * n * share + z**2) / scale
    half = z / scale * math.sqrt(4 * n * share * (1 - share) + z**2)
    low = 0.0 if successes == 0 else centre - half
    return Estimate(share, low, 1.0 if successes == n else centre + half)


def middle_95(values: Iterable[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles, on a straight line between neighbouring values.

    Bit for bit those of ``numpy.quantile``.
    """
    ordered = sorted(values)
    return _quantile(ordered, 0.025), _quantile(ordered, 0.975)


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which a share of the values lies, as ``middle_95`` finds it."""
    return _quantile(sorted(values), share)


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = (len(ordered) - 1) * share
    below = math.floor(place)
    low, high = ordered[below], ordered[min(below + 1, len(ordered) - 1)]
    # From the nearer end, as numpy does: the quantile never lies outside the two values.
    if place - below < 0.5:
        return low + (high - low) * (place - below)
    return high - (high - low) * (1 - (place - below))


def percentile_interval(value: float, resampled: Iterable[float]) -> Estimate:
    """A number with the 2.5 % and 97.5 % quantiles of its resamples.

    Resamples that are NaN or infinite are left out. Undefined where the number itself is not
    finite, or where no resample is.
    """
    defined = [float(each) for each in resampled if math.isfinite(each)]
    if not math.isfinite(value) or not defined:
        return UNDEFINED
    return Estimate(float(value), *middle_95(defined))


def auc_interval(area: float, variance: float, smaller_group: int, error: float = 0.05) -> Estimate:
    """An area under the ROC curve with its interval, cut to 0..1.

    Where one value separates the two groups completely, DeLong's variance is 0, which claims
    certainty; the interval is then that of the rule of three for the smaller group: 3 is about
    -ln 0.05.

    Args:
        area: the area, ties counting half. Only equal scores are ties.
        variance: DeLong's, of the area.
        smaller_group: how many scores the smaller of the two groups has, at least 1.
        error: the chance, in (0, 1), that the interval misses.
    """
    z, three = NormalDist().inv_cdf(1 - error / 2), 3 * math.log(error, 0.05)
    separated = area in (0.0, 1.0)
    half = min(1.0, three / smaller_group) if separated else z * variance**0.5
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for all of them by Holm's step-down procedure.

    >>> holm([0.25, 0.0625, 0.5])
    [0.5, 0.1875, 0.5]

    Claim: the chance of any false finding is at most the level, whatever the dependence.
    Source: Holm 1979.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def to_plain(value: Any) -> Any:
    """Dicts, lists and numbers as strict JSON takes them: None for NaN and infinity."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
