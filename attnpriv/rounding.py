"""Printing bounds: upper ones rounded up and lower ones down, so that what is printed holds."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def round_up(bound: float, digits: int) -> str:
    """The bound with ``digits`` decimals, rounded towards infinity.

    >>> round_up(2.9912, 2), round_up(3.0, 2), round_up(float("inf"), 2)
    ('3.00', '3.00', 'inf')
    """
    return _rounded(bound, digits, ROUND_CEILING)


def round_down(bound: float, digits: int) -> str:
    """The bound with ``digits`` decimals, rounded towards minus infinity.

    >>> round_down(1.2599, 2), round_down(3.0, 2)
    ('1.25', '3.00')
    """
    return _rounded(bound, digits, ROUND_FLOOR)


def _rounded(bound: float, digits: int, rounding: str) -> str:
    exact = Decimal(repr(bound))
    if not exact.is_finite():
        return str(bound)
    # With room for all digits of the largest float.
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding, Context(prec=400)))


def digits_up(bound: float, digits: int) -> str:
    """The bound with at most ``digits`` significant digits, rounded towards infinity.

    >>> digits_up(1e-5, 6), digits_up(4.8765432e-06, 2)
    ('1e-05', '4.9e-06')
    """
    context = Context(prec=digits, rounding=ROUND_CEILING)
    return f"{float(context.create_decimal(repr(bound))):.{digits}g}"
