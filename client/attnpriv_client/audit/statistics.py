"""Bootstraps, areas and sign flips in plain Python, since the client goes without numpy.

The formulas are those of ``attnpriv.audit.statistics``; the random draws differ.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from math import isfinite
from random import Random
from statistics import fmean, variance

from attnpriv.estimates import ROUNDING, UNDEFINED, Estimate, auc_interval, middle_95

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


def auc(positive: Column, negative: Column) -> Estimate:
    """The area under the ROC curve with DeLong's 95 % interval, ties counting half.

    Only equal scores are ties. Where one value separates the two completely, see
    ``attnpriv.estimates.auc_interval``.

    Source: DeLong, DeLong and Clarke-Pearson 1988.
    """
    beaten = _shares_below(positive, negative)
    beating = _shares_below(negative, positive)
    spread = _variance_of_mean(beaten) + _variance_of_mean(beating)
    return auc_interval(fmean(beaten), spread, min(len(positive), len(negative)))


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
