"""Whose budget is charged, how much, and until when; whole numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction

from attnpriv.errors import InputError

MICRO = 10**6
LARGEST = 2**62  # of an amount, so that what is spent and a charge add up in 64 bits
LONGEST_NAME = 255

Exact = int | float | Decimal | Fraction


class Unit(StrEnum):
    """What an account counts in.

    Amounts of one unit add up under composition: ε of pure differential privacy, ρ of
    zero-concentrated differential privacy (Bun and Steinke 2016). Amounts of two units do not, so
    an account has one unit for good.
    """

    EPSILON = "micro-epsilon"
    RHO = "micro-rho"


class Relation(StrEnum):
    """Which two inputs the answer must not tell apart; see section 5 of the guarantees."""

    ANY = "any"  # any change of the input of the same length
    SPAN = "span"  # the same redacted text, with other hidden values
    RECORD = "record"  # one record of many, with any other in its place


def cost_of(amount: Exact) -> int:
    """An ε or ρ in millionths, rounded up, so that no charge is below what is released.

    The number is taken exactly as it is: the float 0.1 lies above a tenth and costs 100,001, while
    ``Decimal("0.1")`` costs 100,000.

    Raises:
        InputError: the amount is not above 0, or too large to count.
    """
    return _in_range("cost", math.ceil(_millionths("cost", amount)))


def limit_of(amount: Exact) -> int:
    """An ε or ρ in millionths, rounded down, so that no limit is above what was allowed.

    Raises:
        InputError: the amount is below a millionth, or too large to count.
    """
    return _in_range("limit", math.floor(_millionths("limit", amount)))


@dataclass(frozen=True)
class Account:
    """Whose budget it is, for which model, under which relation.

    Accounts of two relations count apart. An answer that is private under ``any`` is private under
    ``span`` too and at most as dear there, so where both are limited the caller charges both, under
    two request ids.

    Attributes:
        principal: the name from the principals file, or ``anonymous``.
        model: the name that the model is served by, all its versions together.
        relation: what the answers must not tell apart.

    Raises:
        InputError: a name is empty, too long or not printable.
    """

    principal: str
    model: str
    relation: Relation

    def __post_init__(self) -> None:
        for what in ("principal", "model"):
            name = getattr(self, what)
            if not (name.isprintable() and 1 <= len(name) <= LONGEST_NAME):
                raise InputError(
                    f"expected a {what} of 1 to {LONGEST_NAME} printable characters, "
                    f"got {len(name)} characters"
                )


@dataclass(frozen=True)
class Window:
    """The time for which one limit holds.

    Attributes:
        starts: the first second, in seconds since 1970.
        seconds: how long it lasts; 0 stands for ever, and then ``starts`` is 0.
    """

    starts: int
    seconds: int

    @property
    def ends(self) -> int | None:
        """The first second after it, or None."""
        return self.starts + self.seconds if self.seconds else None

    def holds(self, second: int) -> bool:
        """Whether the second lies in the window."""
        return not self.seconds or self.starts <= second < self.starts + self.seconds


FOR_EVER = Window(0, 0)


@dataclass(frozen=True)
class Period:
    """Windows of one length after one another; they know no calendar, only seconds.

    Attributes:
        seconds: of each window.
        epoch: when one of them begins, in seconds since 1970; any of them will do.

    Raises:
        InputError: a number is not whole or out of range.
    """

    seconds: int
    epoch: int = 0

    def __post_init__(self) -> None:
        for what, least in (("seconds", 1), ("epoch", -(2**40))):
            value = getattr(self, what)
            if type(value) is not int or not least <= value <= 2**40:
                raise InputError(
                    f"expected a period's {what} to be a whole number from {least} to {2**40}, "
                    f"got {value!r}"
                )

    def window(self, second: int) -> Window:
        """The window that a second lies in."""
        return Window(second - (second - self.epoch) % self.seconds, self.seconds)


@dataclass(frozen=True)
class Allowance:
    """How much an account may spend.

    Attributes:
        limit: the most that may be spent in one window, in ``unit``.
        unit: of the limit and of every cost charged under it.
        period: after which a new window begins; None for ever.

    Raises:
        InputError: the limit is not a whole number in range.
    """

    limit: int
    unit: Unit
    period: Period | None = None

    def __post_init__(self) -> None:
        _in_range("limit", self.limit)

    def window(self, second: int) -> Window:
        """The window that a second lies in."""
        return FOR_EVER if self.period is None else self.period.window(second)


def check_cost(cost: int) -> None:
    """Raise InputError unless the cost is a whole number that can be counted."""
    _in_range("cost", cost)


def _millionths(what: str, amount: Exact) -> Fraction:
    try:
        return Fraction(amount) * MICRO
    except (ValueError, OverflowError):
        raise InputError(f"expected a {what} that is a finite number, got {amount!r}") from None


def _in_range(what: str, value: int) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise InputError(
            f"expected a {what} of 1 to {LARGEST} millionths, a whole number, got {value!r}"
        )
    return value
