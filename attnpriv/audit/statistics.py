"""Exact binomial intervals, bootstraps over documents, areas under the ROC curve."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED, Z_95, Estimate, auc_interval

Floats = NDArray[np.float64]
CHUNK = 4_000_000  # drawn counts held at once


def clopper_pearson(successes: int, n: int) -> Estimate:
    """A share with the exact 95 % interval of Clopper and Pearson; undefined for n = 0."""
    if n == 0:
        return UNDEFINED
    interval = binomtest(successes, n).proportion_ci(method="exact")
    return Estimate(successes / n, float(interval.low), float(interval.high))


def bootstrap_counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each of n documents is drawn in each resample, in chunks [resamples', n].

    The same n, number and seed give the same draws: that is what pairs two models.
    """
    rng = np.random.default_rng(seed)
    at_once = max(1, CHUNK // max(n, 1))
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        yield rng.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float64)


def bootstrap_ratios(numerators: Floats, denominators: Floats, resamples: int, seed: int) -> Floats:
    """Ratios of sums over resampled documents: numerators [N, S] and denominators [N] to [R, S]."""
    chunks = bootstrap_counts(len(denominators), resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.concatenate(
            [(counts @ numerators) / (counts @ denominators)[:, None] for counts in chunks]
        )


def auc(positive: Floats, negative: Floats, error: float = 0.05) -> Estimate:
    """The area under the ROC curve with DeLong's interval, ties counting half.

    Only equal scores are ties: what rounding moves apart counts as higher and lower. Where one
    value separates the two completely, see ``estimates.auc_interval``. The interval misses with
    chance ``error``.

    Raises:
        InputError: one of the groups is empty.

    Source: DeLong, DeLong and Clarke-Pearson 1988, by the midranks of Sun and Xu 2014.
    """
    m, n = len(positive), len(negative)
    if not m or not n:
        raise InputError(f"expected rows in both groups, got {m} and {n}")
    beaten, beating = _placements(positive, negative)
    variance = _variance_of_mean(beaten) + _variance_of_mean(beating)
    return auc_interval(float(beaten.mean()), variance, min(m, n), error)


def auc_difference(
    ours: tuple[Floats, Floats], theirs: tuple[Floats, Floats]
) -> tuple[float, float, Estimate]:
    """Two areas under the ROC curve of the same rows, and their difference with its 95 % interval.

    Args:
        ours: scores of the positive rows, and of the negative ones.
        theirs: other scores of the same rows.

    Source: as ``auc``, with the covariance of the two areas.
    """
    above, below = zip(_placements(*ours), _placements(*theirs), strict=True)
    areas = float(above[0].mean()), float(above[1].mean())
    variance = _variance_of_mean(above[0] - above[1]) + _variance_of_mean(below[0] - below[1])
    value, half = areas[0] - areas[1], Z_95 * variance**0.5
    return *areas, Estimate(value, value - half, value + half)


def resampled_areas(positive: Floats, negative: Floats, resamples: int, seed: int) -> Floats:
    """The area under the ROC curve of each resample of the rows of either group, [R].

    Other scores of as many rows are resampled alike under the same seed: that pairs two attacks.
    """
    above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    own, other = (
        np.concatenate([*bootstrap_counts(len(group), resamples, seed + number)])
        for number, group in enumerate((positive, negative))
    )
    return np.asarray(((own @ above) * other).sum(1) / above.size)


def _placements(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    """The share of negatives below each positive, and of positives above each negative."""
    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    return (
        np.asarray((ranks[:m] - rankdata(positive)) / n),
        np.asarray(1 - (ranks[m:] - rankdata(negative)) / m),
    )


def _variance_of_mean(values: Floats) -> float:
    return float(values.var(ddof=1) / len(values)) if len(values) > 1 else 0.25
