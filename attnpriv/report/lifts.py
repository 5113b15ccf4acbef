"""Lifts against both nulls, as tables and as rows of a plot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attnpriv.report.blocks import Group, Table, Words, between, est
from attnpriv.report.drawing import Row
from attnpriv.report.formats import p_value

if TYPE_CHECKING:
    from attnpriv.audit.lift import Lift
    from attnpriv.audit.matched import TokenLift

AVERAGE, LIKE = "Over the average word", "Over like words nearby"
COLUMNS = ("Lift", "By chance", "p", "p, maxT", "p, Holm")


def lift_cells(lift: Lift, corrected: bool = True) -> tuple[Words, ...]:
    """The cells of one lift, with its corrected p-values or without."""
    cells = est(lift.lift, 3), between(lift.null_low, lift.null_high), p_value(lift.p_value)
    return (*cells, p_value(lift.p_adjusted), p_value(lift.p_holm)) if corrected else cells


def token_lifts(caption: str, lifts: Iterable[TokenLift], first: str) -> Table:
    """Lifts of several scores or sets of words, whose kind is ``first``."""
    columns = (
        first,
        "Records",
        "Tokens",
        Group(AVERAGE, COLUMNS),
        Group(LIKE, COLUMNS),
        "Pairs",
    )
    rows = (
        (
            each.name,
            str(each.documents),
            str(each.tokens),
            *lift_cells(each.permuted),
            *lift_cells(each.matched),
            str(each.matched_tokens),
        )
        for each in lifts
    )
    return Table(caption, columns, tuple(rows))


def lift_row(group: str, series: int, name: str, lift: Lift) -> Row:
    """A row of a plot: the lift, and what chance gives."""
    return Row(group, series, name, lift.lift, (lift.null_low, lift.null_high))
