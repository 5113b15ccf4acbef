"""Intervals and areas in plain Python, since the client goes without numpy.

The formulas are those of ``attnpriv.audit.statistics``; the draws of the bootstrap differ.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isfinite, sqrt
from random import Random
from statistics import NormalDist, fmean, quantiles, variance

from attnpriv_client.audit.results import Estimate

RESAMPLES = 1000
# What an answer owes to the machine: servers compute in float32 at best, and another kernel or
# another batch moves a result by a few units in its last place of 2^-23. Draws that are equal but
# for that are tied, and a tie counts as "at least as large", which only raises a p-value.
ROUNDING = 2.0**-20
UNDEFINED = Estimate(None, None, None)
_Z = NormalDist().inv_cdf(0.975)

Column = Sequence[float]


def wilson(successes: int, n: int) -> Estimate:
    """A share with Wilson's 95 % score interval; undefined for n = 0."""
    if n == 0:
        return UNDEFINED
    share = successes / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    low = 0.0 if successes == 0 else centre - half
    return Estimate(share, low, 1.0 if successes == n else centre + half)


def middle_95(values: Column) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles, between values along a line."""
    if len(values) == 1:
        return values[0], values[0]
    cuts = quantiles(values, n=40, method="inclusive")
    return cuts[0], cuts[-1]


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


def auc(positive: Column, negative: Column) -> Estimate:
    """The area under the ROC curve with DeLong's 95 % interval, ties counting half.

    Where one value separates the two completely, DeLong's variance is 0 and says too much; the
    interval is then that of the rule of three for the smaller group.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    beaten = _shares_below(positive, negative)
    beating = _shares_below(negative, positive)
    area = fmean(beaten)
    if area in (0.0, 1.0):
        half = min(1.0, 3 / min(len(positive), len(negative)))
    else:
        half = _Z * sqrt(_variance_of_mean(beaten) + _variance_of_mean(beating))
    return Estimate(area, max(0.0, area - half), min(1.0, area + half))


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


def holm(p_values: Column) -> list[float]:
    """p-values corrected for all of them by Holm's step-down procedure (Holm 1979)."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def shares(scores: Column) -> list[float]:
    """Non-negative scores divided by their sum; uniform where that is 0 or not finite."""
    total = sum(scores)
    if not total or not isfinite(total):
        return [1 / len(scores) for _ in scores]
    return [score / total for score in scores]
