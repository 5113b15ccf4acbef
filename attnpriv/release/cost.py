"""What a draw costs, in whole millionths, and how far it lets probabilities grow for that."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction

from attnpriv.config import is_whole
from attnpriv.errors import InputError

MICRO = 10**6
MOST_MICRO_EPSILON = 20 * MICRO  # beyond, an answer is as good as public


@dataclass(frozen=True)
class Cost:
    """The price of one draw, for accounts that count in ε and for those that count in ρ.

    Attributes:
        micro_epsilon: ε of pure differential privacy, in millionths.
        micro_rho: ρ of zero-concentrated differential privacy, in millionths, rounded up. It is
            ε²/2 (Bun and Steinke 2016, proposition 1.4).
    """

    micro_epsilon: int
    micro_rho: int


FREE = Cost(0, 0)


def cost_of_pure(micro_epsilon: int) -> Cost:
    """The price of a mechanism that is pure ε-differential privacy.

    >>> cost_of_pure(1_000_000)
    Cost(micro_epsilon=1000000, micro_rho=500000)
    """
    return Cost(micro_epsilon, -(-(micro_epsilon**2) // (2 * MICRO)))


def check_micro_epsilon(micro_epsilon: int) -> None:
    """Raise InputError unless ε is a whole number of millionths, above 0 and at most 20."""
    if not is_whole(micro_epsilon) or not 1 <= micro_epsilon <= MOST_MICRO_EPSILON:
        raise InputError(
            f"expected micro_epsilon to be a whole number from 1 to {MOST_MICRO_EPSILON}, "
            f"got {micro_epsilon!r}"
        )


def ratio_below(micro_exponent: Fraction | int) -> Fraction:
    """A fraction that is below e^x and, to 45 digits, equal to it.

    Claim: the decimal module rounds e^x correctly, and the next number below that is below e^x.

    >>> float(ratio_below(1_000_000))
    2.718281828459045

    Args:
        micro_exponent: x in millionths, positive.
    """
    context, exact = Context(prec=48), Fraction(micro_exponent) / MICRO
    exponent = context.divide(Decimal(exact.numerator), Decimal(exact.denominator))
    return Fraction(context.next_minus(context.exp(exponent)))
