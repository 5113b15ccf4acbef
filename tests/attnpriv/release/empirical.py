"""A lower bound on ε from draws alone: what an attacker who sees two inputs' answers can prove."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

from attnpriv.randomness import Stream
from attnpriv.release.draws import draw

CONFIDENCE = 0.95

Outcomes = NDArray[np.int64]


def outcomes(weights: Sequence[int], draws: int, stream: Stream) -> Outcomes:
    """The outcomes of so many draws."""
    return np.array([draw(weights, stream) for _ in range(draws)])


def epsilon_lower_bound(first: Outcomes, second: Outcomes, confidence: float = CONFIDENCE) -> float:
    """An ε that the mechanism exceeds or equals, right in that share of audits of a correct one.

    The first half of the draws picks the outcome that tells the two inputs apart best, and the
    second half measures it, with the exact interval of Clopper and Pearson (1934) for each of its
    two chances.
    """
    kinds = int(max(first.max(), second.max())) + 1
    pairs = [
        [np.bincount(part, minlength=kinds) for part in np.array_split(drawn, 2)]
        for drawn in (first, second)
    ]
    (seen, kept), (other_seen, other_kept) = pairs
    bounds = [
        (_log_ratio(a, seen.sum(), b, other_seen.sum(), confidence), a_kept, b_kept)
        for one, two, one_kept, two_kept in (
            (seen, other_seen, kept, other_kept),
            (other_seen, seen, other_kept, kept),
        )
        for a, b, a_kept, b_kept in zip(one, two, one_kept, two_kept, strict=True)
    ]
    _, a_kept, b_kept = max(bounds)
    return max(0.0, _log_ratio(a_kept, kept.sum(), b_kept, other_kept.sum(), confidence))


def _log_ratio(a: int, of_a: int, b: int, of_b: int, confidence: float) -> float:
    """The least log of the ratio of two chances, each at half of the error allowed."""
    level = (1 - confidence) / 2
    low = beta.ppf(level, a, of_a - a + 1) if a else 0.0
    high = beta.ppf(1 - level, b + 1, of_b - b) if b < of_b else 1.0
    return math.log(low / high) if low else -math.inf
