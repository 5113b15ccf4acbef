"""Draws among a few outcomes whose probabilities are whole numbers, without any rounding."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from attnpriv.errors import InputError
from attnpriv.randomness import Stream

UNIT = 2**60  # the sum to which probabilities are scaled before they are rounded


def draw(weights: Sequence[int], stream: Stream) -> int:
    """The number of an outcome, each drawn with exactly the chance ``weight / sum of weights``.

    Args:
        weights: whole numbers >= 0, not all of them 0.
        stream: source of the bits.
    """
    sums = list(accumulate(weights))
    return bisect_right(sums, stream.below(sums[-1]))


def whole_weights(name: str, scores: Sequence[float]) -> list[int]:
    """Scores as whole numbers with a sum near 2^60; each is off by at most 1 and by one rounding.

    Raises:
        InputError: a score is negative or not finite, or there is no positive one.
    """
    numbers = [float(score) for score in scores]
    for number in numbers:
        if not (number >= 0 and math.isfinite(number)):
            raise InputError(f"expected {name} >= 0 and finite, got {number}")
    total = math.fsum(numbers)
    if not (total > 0 and math.isfinite(total)):
        raise InputError(f"expected {name} with a positive and finite sum, got {total}")
    return [round(number / total * UNIT) for number in numbers]
