"""Naming the best answer: randomised response among the answers that the redacted text suggests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from attnpriv.errors import InputError
from attnpriv.randomness import Stream
from attnpriv.release.cost import (
    FREE,
    MICRO,
    Cost,
    check_micro_epsilon,
    cost_of_pure,
    ratio_below,
)
from attnpriv.release.draws import draw, whole_weights

OTHER = 2**40  # the weight of each candidate that is not the secret answer


@dataclass(frozen=True)
class RandomisedResponse:
    """Names the secret answer as often as ε allows, given what is known without it.

    The candidates are the j most plausible answers by the prior. The secret answer, if among them,
    is e^ε times as likely as each other candidate; if not, all are equally likely. The j taken is
    the one that is right most often by the prior. If that is 1, the redacted text alone gives the
    answer, and nothing is charged.

    Claim: pure ε-differential privacy for any two inputs with the same prior, ε being
    ``micro_epsilon`` millionths. If the prior is right about the chances of the secret answer, no
    mechanism of that ε is right more often (Ghazi et al. 2021, arXiv:2102.06062).
    Condition: the prior is computed from the redacted text and public data, the same to the last
    bit for two related inputs. For privacy under *any* change of the input it is a constant, such
    as equal numbers, which gives the classic K-ary randomised response.
    Not covered: how often the name is right where the prior is not. An answer that is no candidate
    is never named.

    >>> mechanism = RandomisedResponse([0.6, 0.3, 0.1], micro_epsilon=1_000_000)
    >>> mechanism.candidates, mechanism.cost.micro_epsilon
    ((0, 1), 1000000)
    >>> RandomisedResponse([0.9, 0.1], micro_epsilon=1_000_000).cost == FREE
    True

    Attributes:
        prior: how plausible each of K answers is, as numbers >= 0; they need not sum to 1.
        micro_epsilon: ε in millionths, at most 20,000,000.

    Raises:
        InputError: an attribute is out of range.
    """

    prior: Sequence[float]
    micro_epsilon: int

    def __post_init__(self) -> None:
        check_micro_epsilon(self.micro_epsilon)
        whole_weights("prior", self.prior)  # refuses a bad prior

    @cached_property
    def candidates(self) -> tuple[int, ...]:
        """The answers that can be named, most plausible first; ties go to the smaller number."""
        prior = whole_weights("prior", self.prior)
        ranked = sorted(range(len(prior)), key=lambda answer: -prior[answer])
        favour = math.exp(self.micro_epsilon / MICRO)
        best, most, mass = 1, 0.0, 0.0
        for size, answer in enumerate(ranked, start=1):
            mass += prior[answer]
            right = mass * favour / (favour + size - 1)
            if right > most:
                best, most = size, right
        return tuple(ranked[:best])

    @property
    def cost(self) -> Cost:
        """What a draw costs, known without the secret answer."""
        return FREE if len(self.candidates) == 1 else cost_of_pure(self.micro_epsilon)

    def weights(self, answer: int) -> list[int]:
        """The chances of the K answers as whole numbers; they are secret, as ``answer`` is.

        Args:
            answer: the secret one, from 0 to K - 1.

        Raises:
            InputError: there is no such answer. The message does not say which one it was.
        """
        if not 0 <= answer < len(self.prior):
            raise InputError(f"expected an answer from 0 to {len(self.prior) - 1}, got another one")
        weights = [0] * len(self.prior)
        for candidate in self.candidates:
            weights[candidate] = OTHER
        if weights[answer]:
            weights[answer] = self._favoured
        return weights

    def draw(self, answer: int, stream: Stream) -> int:
        """Draw the answer to name, between 0 and K - 1; charge ``cost`` first.

        Args:
            answer: the secret one, from 0 to K - 1.
            stream: source of the bits, of a secret key that makes this draw only.

        Raises:
            InputError: there is no such answer.
        """
        return draw(self.weights(answer), stream)

    @cached_property
    def _favoured(self) -> int:
        return math.floor(ratio_below(self.micro_epsilon) * OTHER)
