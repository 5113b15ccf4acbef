"""Attention followed through the layers, and weighted by what the values carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import UNCOVERED, Block, Details, How, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import (
    MORE_RECORDS,
    NO_ACTION,
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    SLIGHTLY,
    TOO_FEW,
    Finding,
    above_chance,
    invalid,
    not_run,
    small,
)
from attnpriv.report.formats import interval
from attnpriv.report.lifts import token_lifts
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.matched import TokenLift
    from attnpriv.audit.measures import AuditResult

READ_ON = "Read whether the answers rely on it: these readings leave parts of the model out."


def finding(result: AuditResult) -> Finding:
    """Rollout and norm-weighted attention, judged by the controls of attention's two nulls."""
    flow, attention = result.flow, result.attention
    name = "Attention through layers and values"
    if isinstance(flow, NotRun):
        return not_run("flow", name, flow.not_run, NO_ACTION)
    if isinstance(attention, NotRun):  # whose controls judge both readings
        return not_run("flow", name, attention.not_run, NO_ACTION)
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
        return Finding("info" if slightly else "warn", title, f"{figure}.", "flow", READ_ON)
    title = "Neither reading favours personal data"
    if not powered:
        return Finding("warn", title, f"{figure}. {TOO_FEW}", "flow", MORE_RECORDS)
    action = (
        "No action from this result alone: these readings leave parts of the model out, so they "
        "clear nothing."
    )
    return Finding("info", title, f"{figure}.", "flow", action)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Both readings of each run, then norm-weighted attention by layer and head."""
    yield Text(
        Markup(
            "Attention weights say where a layer looks, not what it takes from there. Rollout "
            "multiplies the weights through all layers; norm-weighted attention multiplies each "
            "weight by the length of the vector that it carries. The plot of the section on "
            "attention shows both; the controls there are theirs too. {}"
        ).format(UNCOVERED)
    )
    measured, reasons = measured_of(runs, "flow")
    yield from reasons
    for name, flow in measured:
        readings = [flow.rollout, flow.norm_weighted]
        yield token_lifts(f"Attention through layers and values, {name}", readings, "Reading")
        parts = (
            token_lifts(f"Norm-weighted attention by layer, {name}", flow.layers, "Layer"),
            token_lifts(f"Norm-weighted attention by head, {name}", flow.heads, "Head"),
        )
        yield Details(f"Layers and heads of {name}, norm-weighted", parts)
    yield How(
        "results[].flow",
        "Rollout: Abnar and Zuidema 2020. Norm-weighted: Kobayashi et al. 2020. Nulls, intervals "
        "and corrections are those of attention.",
    )


CHAPTER = Chapter(
    name="flow",
    place=50,
    title="Attention through layers and values",
    body=body,
    asks=Question(
        "Does attention focus on personal data once values and layers count?",
        "Rollout through the layers, and weights times the length of the values they carry.",
        finding,
    ),
    figures=(
        Figure("flow.rollout.permuted.lift", "rollout lift", higher_is_worse=True, comparable=True),
        Figure(
            "flow.rollout.matched.lift",
            "rollout lift over like words nearby",
            higher_is_worse=True,
            comparable=True,
        ),
        Figure(
            "flow.norm_weighted.permuted.lift",
            "norm-weighted lift",
            higher_is_worse=True,
            comparable=True,
        ),
        Figure(
            "flow.norm_weighted.matched.lift",
            "norm-weighted lift over like words nearby",
            higher_is_worse=True,
            comparable=True,
        ),
    ),
)
