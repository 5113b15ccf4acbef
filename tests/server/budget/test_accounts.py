"""Amounts, periods and names."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.errors import InputError
from attnpriv_server.budget.accounts import (
    LARGEST,
    Account,
    Allowance,
    Period,
    Relation,
    Unit,
    Window,
    cost_of,
    limit_of,
)


@pytest.mark.parametrize(
    ("amount", "cost", "limit"),
    [
        (1, 1_000_000, 1_000_000),
        (0.5, 500_000, 500_000),
        (Decimal("0.1"), 100_000, 100_000),
        (0.1, 100_001, 100_000),  # the float lies above a tenth
        (0.3, 300_000, 299_999),  # and this one below
        (Fraction(1, 3), 333_334, 333_333),
        (Decimal("0.0000011"), 2, 1),
    ],
)
def test_costs_are_rounded_up_and_limits_down(amount, cost, limit) -> None:
    assert cost_of(amount) == cost
    assert limit_of(amount) == limit


@given(st.floats(2e-6, 1e6))
def test_rounding_gives_nothing_away(amount: float) -> None:
    assert Fraction(cost_of(amount), 10**6) >= Fraction(amount) >= Fraction(limit_of(amount), 10**6)


@pytest.mark.parametrize("amount", [0, -1, float("nan"), float("inf"), 1e30])
def test_amounts_that_cannot_be_counted_are_refused(amount) -> None:
    for convert in (cost_of, limit_of):
        with pytest.raises(InputError, match="expected a (cost|limit)"):
            convert(amount)


@pytest.mark.parametrize("limit", [0, -1, LARGEST + 1, 1.5, True])
def test_a_limit_is_a_whole_number(limit) -> None:
    with pytest.raises(InputError, match="expected a limit"):
        Allowance(limit, Unit.EPSILON)


@pytest.mark.parametrize(
    ("second", "starts"), [(0, -7), (2, -7), (3, 3), (12, 3), (13, 13), (-8, -17)]
)
def test_windows_begin_at_the_epoch_and_follow_one_another(second, starts) -> None:
    window = Period(10, epoch=3).window(second)

    assert window == Window(starts, 10)
    assert window.ends == starts + 10


@given(st.integers(1, 10**8), st.integers(-(10**10), 10**10), st.integers(0, 10**10))
def test_each_second_lies_in_one_window(seconds, epoch, second) -> None:
    period = Period(seconds, epoch)
    window = period.window(second)

    assert window.holds(second)
    assert (window.starts - epoch) % seconds == 0
    assert period.window(window.starts) == period.window(window.ends - 1) == window
    assert period.window(window.ends).starts == window.ends


def test_without_a_period_the_window_has_no_end() -> None:
    window = Allowance(1, Unit.RHO).window(10**9)

    assert window.ends is None
    assert window.holds(0)
    assert window.holds(10**12)


@pytest.mark.parametrize("values", [{"seconds": 0}, {"seconds": 1.5}, {"seconds": 1, "epoch": "0"}])
def test_a_period_is_of_whole_seconds(values) -> None:
    with pytest.raises(InputError, match="expected a period's"):
        Period(**values)


@pytest.mark.parametrize("name", ["", "a\x00b", "a\nb", "\ud800", "n" * 256])
def test_names_that_a_database_cannot_hold_are_refused(name) -> None:
    for values in ((name, "mail"), ("bot", name)):
        with pytest.raises(InputError, match="printable characters") as caught:
            Account(*values, Relation.ANY)
        assert not name or name not in str(caught.value)
