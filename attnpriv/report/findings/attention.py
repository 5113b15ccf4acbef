"""Findings on where attention goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.report.findings.base import (
    SMALL,
    Finding,
    Level,
    above_chance,
    invalid,
    is_significant,
    not_run,
    small,
    stands_out,
)
from attnpriv.report.formats import interval

if TYPE_CHECKING:
    from attnpriv.audit.attention import AttentionResult
    from attnpriv.audit.matched import TokenLift
    from attnpriv.audit.rollout import FlowResult

NO_PERSONAL_DATA = "no personal data was found in these records"
OTHER_RECORDS = "Audit records that hold personal data, and check what the detector cannot see."
SLIGHTLY = f", but by less than {SMALL - 1:.0%}"
READ_ON = "Read whether the answers rest on it: attention alone explains nothing."


def about_attention(attention: AttentionResult) -> Finding:
    """The lift on personal data against both nulls.

    A lift over the average word that words of the same length nearby show too is no finding.
    """
    name, overall, matched = "Attention to personal data", attention.overall, attention.matched
    if overall.lift.value is None:
        return not_run("attention", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    if not (attention.null.passed and attention.matched_null.passed):
        return invalid("attention", name, attention.null, attention.matched_null)
    figure = (
        f"Personal data gets {interval(overall.lift, 3)} times the attention of an average word, "
        f"and {interval(matched.lift, 3)} times that of like words nearby"
    )
    powered = attention.planted.passed and attention.matched_planted.passed
    if above_chance(matched):
        return _favoured(attention, figure)
    if not powered:
        title = "No difference in attention to personal data was found"
        if above_chance(overall):
            title = "Attention favours personal data, perhaps for its length and place"
        few = "These documents are too few to find even a doubled attention"
        action = "Audit more records before concluding anything."
        return Finding("warn", title, f"{figure}. {few}.", "attention", action)
    return _not_favoured(figure, above_chance(overall), is_significant(overall.p_value))


def _favoured(attention: AttentionResult, figure: str) -> Finding:
    slightly = small(attention.matched)
    return Finding(
        "info" if slightly else "warn",
        f"Attention favours personal data{SLIGHTLY if slightly else ''}",
        f"{figure}: more than chance explains.{_where(attention)}",
        "attention",
        READ_ON,
    )


def _not_favoured(figure: str, more: bool, differs: bool) -> Finding:
    """Like words nearby get as much, in records enough to have told otherwise."""
    if more:
        title = "Attention favours personal data no more than like words"
        text = f"{figure}: its length and place explain the difference."
    elif differs:
        title = "Attention does not favour personal data"
        text = f"{figure}, less than shuffled labels give."
    else:
        title = "No difference in attention to personal data was found"
        text = f"{figure}, which shuffled labels give as well."
    level: Level = "good" if differs and not more else "info"
    return Finding(level, title, text, "attention", READ_ON)


def _where(attention: AttentionResult) -> str:
    """Which heads and types favour it beyond chance, after correction for looking at many."""
    heads = sum(stands_out(head.content) for head in attention.heads)
    where = f" Over the average word, beyond chance in {heads} of {len(attention.heads)} heads"
    types = [
        f"{each.name} ({each.permuted.lift.value:.2f})"
        for each in attention.entity_types
        if stands_out(each.permuted)
    ]
    return f"{where}; by type, {', '.join(types)}." if types else f"{where}."


def about_flow(flow: FlowResult, attention: AttentionResult) -> Finding:
    """Rollout and norm-weighted attention, judged by the controls of the same two nulls."""
    name = "Attention through layers and values"
    readings = {
        "followed through the layers": flow.rollout,
        "weighted by what the values carry": flow.norm_weighted,
    }
    if any(each.permuted.lift.value is None for each in readings.values()):
        return not_run("flow", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    if not (attention.null.passed and attention.matched_null.passed):
        return invalid("flow", name, attention.null, attention.matched_null)
    figure = "Over like words nearby, personal data gets " + ", and ".join(
        f"{interval(each.matched.lift, 3)} times the attention {how}"
        for how, each in readings.items()
    )
    return _flow(figure, [*readings.values()], attention.matched_planted.passed)


def _flow(figure: str, readings: list[TokenLift], powered: bool) -> Finding:
    above = [above_chance(each.matched) for each in readings]
    if any(above):
        slightly = small(*(each.matched for each in readings))
        how = "Both readings favour" if all(above) else "One of two readings favours"
        title = f"{how} personal data{SLIGHTLY if slightly else ''}"
        action = "Read whether the answers rest on it: these readings leave parts of the model out."
        return Finding("info" if slightly else "warn", title, f"{figure}.", "flow", action)
    if not powered:
        return Finding(
            "warn",
            "Neither reading favours personal data",
            f"{figure}. These documents are too few to find even a doubled attention.",
            "flow",
            "Audit more records before concluding anything.",
        )
    action = "Nothing; these readings leave parts of the model out, so they clear nothing either."
    return Finding("info", "Neither reading favours personal data", f"{figure}.", "flow", action)
