"""Attack models that are fitted to some records and used on others, in plain Python.

Logistic regression as ``attnpriv.audit.leakage.fitting`` asks it of scikit-learn, minimised by
accelerated gradients: the same penalty, the same features of words but for how they are hashed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import exp, log1p, sqrt
from random import Random
from statistics import fmean, pstdev

STRENGTH = 10.0  # inverse of the penalty, for rows of a norm of about 1
EXTREME = 4.0  # deviations, at which a feature is cut off
STEPS = 200
_TOKEN = re.compile(r"\w+|[^\w\s]")

Features = Sequence[float]
Sparse = dict[str, float]
"""A row by the names of its features."""


def half_of(count: int, seed: int) -> list[bool]:
    """A random half of so many records; of an odd number the smaller half."""
    order = list(range(count))
    Random(f"{seed} half").shuffle(order)
    return [place < count // 2 for place in order]


def fitted_scores(
    known: Sequence[Features], truth: Sequence[bool], asked: Sequence[Features]
) -> list[float]:
    """Log-odds of the truth for each row asked about, by a regression on known rows.

    Args:
        known: features of each known row, F numbers each.
        truth: what is to be guessed, of each of them; both values occur.
        asked: features of other rows.
    """
    columns = list(zip(*known, strict=True))
    centre = [fmean(column) for column in columns]
    scale = [pstdev(column) or 1.0 for column in columns]

    def scaled(row: Features) -> Sparse:
        cut = (
            max(-EXTREME, min(EXTREME, (value - middle) / deviation))
            for value, middle, deviation in zip(row, centre, scale, strict=True)
        )
        return {str(n): value / sqrt(len(row)) for n, value in enumerate(cut)}

    return _log_odds([*map(scaled, known)], truth, [*map(scaled, asked)])


def fitted_word_scores(
    known: Sequence[str], truth: Sequence[bool], asked: Sequence[str]
) -> list[float]:
    """The same from the texts alone: their words, pairs of words, length, digits and capitals."""
    shapes = [_shape(text) for text in known]
    columns = list(zip(*shapes, strict=True))
    centre = [fmean(column) for column in columns]
    scale = [max(pstdev(column), 1e-9) * sqrt(len(columns)) for column in columns]

    def row(text: str) -> Sparse:
        features = _words(text)
        for n, value in enumerate(_shape(text)):
            features[f"{n} shape"] = (value - centre[n]) / scale[n]
        return features

    return _log_odds([*map(row, known)], truth, [*map(row, asked)])


def _words(text: str) -> Sparse:
    words = _TOKEN.findall(text.lower())
    counts = Counter([*words, *map(" ".join, pairwise(words))])
    norm = sqrt(sum(count**2 for count in counts.values())) or 1.0
    return {word: count / norm for word, count in counts.items()}


def _shape(text: str) -> list[float]:
    size = max(len(text), 1)
    return [
        log1p(len(text)),
        log1p(len(text.split())),
        sum(map(str.isdigit, text)) / size,
        sum(map(str.isupper, text)) / size,
    ]


def _log_odds(
    known: Sequence[Sparse], truth: Sequence[bool], asked: Sequence[Sparse]
) -> list[float]:
    weights, intercept = _fit(known, truth)
    return [intercept + _dot(weights, row.items()) for row in asked]


def _fit(known: Sequence[Sparse], truth: Sequence[bool]) -> tuple[Sparse, float]:
    """Minimise |w|² / 2 + STRENGTH · Σ log(1 + e^-margin) by Nesterov's method.

    The step is that of the largest curvature that the rows allow, so that no step overshoots.
    """
    rows = [list(row.items()) for row in known]
    curvature = 1 + STRENGTH / 4 * sum(1 + sum(v * v for _, v in row) for row in rows)
    momentum = (sqrt(curvature) - 1) / (sqrt(curvature) + 1)
    weights: Sparse = {}
    ahead: Sparse = {}
    intercept = ahead_intercept = 0.0
    for _ in range(STEPS):
        slopes = dict(ahead)
        slope = 0.0
        for row, is_true in zip(rows, truth, strict=True):
            error = STRENGTH * (_expit(ahead_intercept + _dot(ahead, row)) - is_true)
            slope += error
            for name, value in row:
                slopes[name] = slopes.get(name, 0.0) + error * value
        stepped = {n: ahead.get(n, 0.0) - s / curvature for n, s in slopes.items()}
        ahead = {n: w + momentum * (w - weights.get(n, 0.0)) for n, w in stepped.items()}
        stepped_intercept = ahead_intercept - slope / curvature
        ahead_intercept = stepped_intercept + momentum * (stepped_intercept - intercept)
        weights, intercept = stepped, stepped_intercept
    return weights, intercept


def _dot(weights: Sparse, row: Iterable[tuple[str, float]]) -> float:
    return sum(weights.get(name, 0.0) * value for name, value in row)


def _expit(value: float) -> float:
    return 1 / (1 + exp(-value)) if value > 0 else 1 - 1 / (1 + exp(value))
