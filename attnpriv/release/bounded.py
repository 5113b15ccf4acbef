"""A draw that follows the scores of the whole text, as closely as ε allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attnpriv.errors import InputError
from attnpriv.randomness import Stream
from attnpriv.release.cost import Cost, check_micro_epsilon, cost_of_pure, ratio_below
from attnpriv.release.draws import UNIT, draw, whole_weights

SMALLEST_SHARE = 2.0**-60
LARGEST_EXPONENT = 80.0  # of the power of two that takes every weight to one of its bounds
HALVINGS = 60


@dataclass(frozen=True)
class BoundedDraw:
    """Draws a key position or a class with nearly the chances that the whole text gives it.

    Every chance stays between e^(-ε/2) and e^(ε/2) times what the redacted text gives. Within these
    bounds the chances are those of the whole text, times one factor that makes them sum to 1.

    Claim: pure ε-differential privacy for any two inputs with the same redacted scores, ε being
    ``micro_epsilon`` millionths, whatever the scores of the whole text are. No other chances within
    the same bounds have a smaller total variation distance to those of the whole text, to within
    1e-9; those of the mixture ``λ·whole + (1-λ)·redacted``, in the manner of DP-Fusion
    (arXiv:2507.04531), lie within them too.
    Condition: the redacted scores are computed from the redacted text and public data, the same to
    the last bit for two related inputs. For privacy under *any* change they are a constant.
    Not covered: naming the top position or class, for which ``RandomisedResponse`` is better; what
    the redacted text gives 0, which stays at 0.

    >>> mechanism = BoundedDraw([0.5, 0.3, 0.2], micro_epsilon=1_000_000)
    >>> [round(weight / UNIT, 4) for weight in mechanism.weights([0.4, 0.4, 0.2])]
    [0.4, 0.4, 0.2]
    >>> [round(weight / UNIT, 4) for weight in mechanism.weights([0.0, 0.0, 1.0])]
    [0.4189, 0.2513, 0.3297]

    Attributes:
        redacted: the scores of K outcomes by the redacted text, as numbers >= 0.
        micro_epsilon: ε in millionths, at most 20,000,000.

    Raises:
        InputError: an attribute is out of range.
    """

    redacted: Sequence[float]
    micro_epsilon: int

    def __post_init__(self) -> None:
        check_micro_epsilon(self.micro_epsilon)
        whole_weights("redacted", self.redacted)  # refuses bad scores

    @property
    def cost(self) -> Cost:
        """What a draw costs, known without the whole text."""
        return cost_of_pure(self.micro_epsilon)

    def weights(self, whole: Sequence[float]) -> list[int]:
        """The chances of the K outcomes as whole numbers; they are secret, as ``whole`` is.

        Args:
            whole: the scores by the whole text, probabilities or others from 0 to 1. One that is
                negative or not finite counts as 0, one above 1 as 1: an error would tell of the
                hidden values.

        Raises:
            InputError: there are not as many scores as ``redacted`` has.
        """
        if len(whole) != len(self.redacted):
            raise InputError(f"expected {len(self.redacted)} scores, got {len(whole)}")
        low, high = self._bounds
        weights = [
            min(max(int(weight), least), most)
            for weight, least, most in zip(self._scaled(whole), low, high, strict=True)
        ]
        # What rounding has left over is given to the first that has room.
        missing = sum(self._redacted) - sum(weights)
        for place, weight in enumerate(weights):
            weights[place] = min(max(weight + missing, low[place]), high[place])
            missing -= weights[place] - weight
        return weights

    def draw(self, whole: Sequence[float], stream: Stream) -> int:
        """Draw the number of an outcome, from 0 to K - 1; charge ``cost`` first.

        Args:
            whole: the secret scores of the K outcomes.
            stream: source of the bits, of a secret key that makes this draw only.

        Raises:
            InputError: there are not as many scores as ``redacted`` has.
        """
        return draw(self.weights(whole), stream)

    @cached_property
    def _redacted(self) -> list[int]:
        return whole_weights("redacted", self.redacted)

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        ratio = ratio_below(Fraction(self.micro_epsilon, 2))
        low = [math.ceil(weight / ratio) for weight in self._redacted]
        return low, [math.floor(weight * ratio) for weight in self._redacted]

    def _scaled(self, whole: Sequence[float]) -> NDArray[np.float64]:
        """The scores times the factor with which, cut to the bounds, they have the right sum.

        Bisection takes the same number of steps for all scores. An error here moves the chances
        from those of the whole text, and never out of their bounds.
        """
        numbers = np.asarray(whole, dtype=np.float64)
        scores = np.clip(np.where(np.isfinite(numbers), numbers, 0.0), 0.0, 1.0) * UNIT
        redacted = np.array(self._redacted, dtype=np.float64)
        scores += SMALLEST_SHARE * redacted  # so that no score is 0 where the redacted one is not
        low, high = (np.array(bounds, dtype=np.float64) for bounds in self._bounds)
        below, above = -LARGEST_EXPONENT, LARGEST_EXPONENT
        for _ in range(HALVINGS):
            middle = (below + above) / 2
            if np.clip(scores * 2.0**middle, low, high).sum() < redacted.sum():
                below = middle
            else:
                above = middle
        scaled: NDArray[np.float64] = np.clip(scores * 2.0**below, low, high)
        return scaled
