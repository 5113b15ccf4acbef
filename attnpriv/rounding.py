"""Printing bounds: rounded up, so that what is printed is never below the bound."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context, Decimal


def round_up(bound: float, digits: int) -> str:
    """The bound with ``digits`` decimals, rounded towards infinity.

    >>> round_up(2.9912, 2), round_up(3.0, 2), round_up(float("inf"), 2)
    ('3.00', '3.00', 'inf')
    """
    exact = Decimal(repr(bound))
    if not exact.is_finite():
        return str(bound)
    # With room for all digits of the largest float.
    return str(exact.quantize(Decimal(1).scaleb(-digits), ROUND_CEILING, Context(prec=400)))


def digits_up(bound: float, digits: int) -> str:
    """The bound with at most ``digits`` significant digits, rounded towards infinity.

    >>> digits_up(1e-5, 6), digits_up(4.8765432e-06, 2)
    ('1e-05', '4.9e-06')
    """
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{float(context.create_decimal(repr(bound))):.{digits}g}"
