"""How numbers are written for people."""

from __future__ import annotations

from attnpriv.estimates import Estimate

UNDEFINED = "–"


def number(value: float | None, digits: int = 3) -> str:
    """The number with so many decimals.

    >>> number(0.25, 1), number(-0.01, 1), number(None)
    ('0.2', '0.0', '–')
    """
    return UNDEFINED if value is None else f"{value:z.{digits}f}"


def percent(value: float | None) -> str:
    """A share in per cent."""
    return UNDEFINED if value is None else f"{value:.1%}"


def interval(estimate: Estimate, digits: int = 2) -> str:
    """The number with its interval."""
    if estimate.value is None:
        return UNDEFINED
    value, low, high = (number(e, digits) for e in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def share(estimate: Estimate) -> str:
    """The same in per cent."""
    if estimate.value is None:
        return UNDEFINED
    return f"{estimate.value:.1%} [{percent(estimate.low)}, {percent(estimate.high)}]"


def p_value(value: float | None) -> str:
    """A p-value, never as 0."""
    if value is None:
        return UNDEFINED
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
