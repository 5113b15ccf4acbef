"""Bootstraps, areas and sign flips in plain Python, since the client goes without numpy.

The formulas are those of ``attnpriv.audit.statistics``; the random draws differ.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isfinite
from random import Random
from statistics import fmean, variance

from attnpriv.estimates import ROUNDING, UNDEFINED, Z_95, Estimate, auc_interval, middle_95

RESAMPLES = 1000

Column = Sequence[float]


def bootstrap_ratios(columns: Sequence[Column], weights: Column, seed: int) -> list[Estimate]:
    """For each column its sum over that of the weights, with a bootstrap over the documents.

    Args:
        columns: S numerators, each with one number a document.
        weights: the denominators; all 1 for means.
        seed: the same seed and number of documents give the same draws.

    Returns:
        Percentile intervals at 95 %. Resamples whose weights sum to 0 are left out; a ratio over 0
        is undefined.
    """
    total = sum(weights)
    if not total:
        return [UNDEFINED] * len(columns)
    drawn = _resampled(columns, weights, seed)
    return [
        Estimate(sum(column) / total, *middle_95(ratios))
        for column, ratios in zip(columns, drawn, strict=True)
    ]


def _resampled(columns: Sequence[Column], weights: Column, seed: int) -> list[list[float]]:
    rng, documents = Random(seed), range(len(weights))
    drawn: list[list[float]] = [[] for _ in columns]
    for _ in range(RESAMPLES):
        rows = rng.choices(documents, k=len(documents))
        bottom = sum(map(weights.__getitem__, rows))
        if bottom:
            for column, ratios in zip(columns, drawn, strict=True):
                ratios.append(sum(map(column.__getitem__, rows)) / bottom)
    return drawn


def resampled_ratios(column: Column, weights: Column, seed: int) -> list[float]:
    """The ratio of one column in each resample; see ``bootstrap_ratios``."""
    return _resampled([column], weights, seed)[0]


def auc(positive: Column, negative: Column, error: float = 0.05) -> Estimate:
    """The area under the ROC curve with DeLong's interval, ties counting half.

    Only equal scores are ties. Where one value separates the two completely, see
    ``attnpriv.estimates.auc_interval``. The interval misses with chance ``error``.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    beaten = _shares_below(positive, negative)
    beating = _shares_below(negative, positive)
    spread = _variance_of_mean(beaten) + _variance_of_mean(beating)
    return auc_interval(fmean(beaten), spread, min(len(positive), len(negative)), error)


def auc_gain(ours: tuple[Column, Column], theirs: tuple[Column, Column]) -> Estimate:
    """By how much one area exceeds another of the same rows, with its 95 % interval.

    Source: as ``auc``, with the covariance of the two areas.
    """
    gains = [
        [a - b for a, b in zip(_shares_below(*own), _shares_below(*other), strict=True)]
        for own, other in ((ours, theirs), (ours[::-1], theirs[::-1]))
    ]
    half = Z_95 * sum(map(_variance_of_mean, gains)) ** 0.5
    value = fmean(gains[0])
    return Estimate(value, value - half, value + half)


def resampled_areas(positive: Column, negative: Column, seed: int) -> list[float]:
    """The area under the ROC curve of each resample of the rows of either group.

    Other scores of as many rows are resampled alike under the same seed: that pairs two attacks.
    """
    rank = {value: place for place, value in enumerate(sorted({*positive, *negative}))}
    ours, theirs = ([rank[value] for value in group] for group in (positive, negative))
    rng = Random(f"{seed} areas")
    return [
        _area(rng.choices(ours, k=len(ours)), rng.choices(theirs, k=len(theirs)), len(rank))
        for _ in range(RESAMPLES)
    ]


def _area(positive: Sequence[int], negative: Sequence[int], ranks: int) -> float:
    """The same from the ranks of either group."""
    above, below = [0] * ranks, [0] * ranks
    for place in positive:
        above[place] += 1
    for place in negative:
        below[place] += 1
    seen, area = 0, 0.0
    for ours, theirs in zip(above, below, strict=True):
        area += ours * (seen + theirs / 2)
        seen += theirs
    return area / (len(positive) * len(negative))


def _shares_below(values: Column, others: Column) -> list[float]:
    """For each value the share of the others below it, ties counting half."""
    ordered, twice = sorted(others), 2 * len(others)
    return [(bisect_left(ordered, v) + bisect_right(ordered, v)) / twice for v in values]


def _variance_of_mean(values: Column) -> float:
    return variance(values) / len(values) if len(values) > 1 else 0.25


def sign_flip_p_value(sums: Column, permutations: int, seed: int) -> float:
    """One-sided: how often the sum is as large when each document's sign is a fair coin."""
    rng, tied = Random(seed), sum(sums) - ROUNDING * len(sums)
    beyond = sum(
        sum(each if rng.getrandbits(1) else -each for each in sums) >= tied
        for _ in range(permutations)
    )
    return (1 + beyond) / (1 + permutations)


def shares(scores: Column) -> list[float]:
    """Non-negative scores divided by their sum; uniform where that is 0 or not finite."""
    total = sum(scores)
    if not total or not isfinite(total):
        return [1 / len(scores) for _ in scores]
    return [score / total for score in scores]
