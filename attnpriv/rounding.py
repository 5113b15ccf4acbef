"""How a bound is printed: never below what it is."""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal


def round_up(bound: float, digits: int) -> str:
    """The bound with so many decimals, rounded towards infinity.

    >>> round_up(2.9912, 2), round_up(3.0, 2), round_up(float("inf"), 2)
    ('3.00', '3.00', 'inf')
    """
    exact = Decimal(repr(bound))
    if not exact.is_finite():
        return str(bound)
    return str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING))
