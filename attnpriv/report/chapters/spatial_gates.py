"""Where gates look that weigh positions, and their proved bound beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import UNCOVERED, Block, Controls, How, Row, Span, Table, Text, both
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import (
    MORE_RECORDS,
    NO_ACTION,
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    TOO_FEW,
    Finding,
    above_chance,
    invalid,
    not_run,
)
from attnpriv.report.formats import UNDEFINED, interval, number, percent
from attnpriv.report.lifts import token_lifts
from attnpriv.report.measured import measured_of
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.spatial_gates import SpatialGatesResult

READ_ON = "Read whether the answers rely on it: a gate alone explains nothing."


def finding(result: AuditResult) -> Finding:
    """A broken bound first, then the lift of the gates against both nulls."""
    gates, name = result.spatial_gates, "Gates on personal data"
    if isinstance(gates, NotRun):
        return not_run("spatial_gates", name, gates.not_run, NO_ACTION)
    if gates.certificate.holds is False:
        return Finding(
            "bad",
            "GATES EXCEED THEIR PROVED BOUND",
            "This is a defect: a gate, or the share of the gates on personal data, lies beyond it.",
            "spatial_gates",
            "Do not release this model. Report the defect.",
        )
    overall, matched = gates.overall.permuted, gates.overall.matched
    if overall.lift.value is None:
        return not_run("spatial_gates", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    if not (gates.null.passed and gates.matched_null.passed):
        return invalid("spatial_gates", name, gates.null, gates.matched_null)
    text = (
        f"Personal data gets {interval(overall.lift, 3)} times the gate of an average position, "
        f"and {interval(matched.lift, 3)} times that of like positions nearby. {_bound(gates)}"
    )
    if above_chance(overall) or above_chance(matched):
        return Finding("warn", "Gates favour personal data", text, "spatial_gates", READ_ON)
    title = "Gates do not favour personal data"
    if not (gates.planted.passed and gates.matched_planted.passed):
        return Finding("warn", title, f"{text} {TOO_FEW}", "spatial_gates", MORE_RECORDS)
    return Finding("info", title, text, "spatial_gates", READ_ON)


def _bound(gates: SpatialGatesResult) -> str:
    bound = gates.certificate.lift_bound
    if bound is None:
        return "Nothing bounds this: the logits of the gates are not clipped."
    return f"No layer can give more than {round_up(bound, 2)} times, by proof."


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The bounds of all runs, and the lifts of each."""
    yield Text(
        Markup(
            "A spatial gate is a number from 0 to 1 that weighs one position of an image in one "
            "layer. Lift compares the gates of personal data with those of an average position of "
            "the same record, as for attention. Where the logits of the gates are clipped, a "
            "formula limits the lift of a layer, whatever the image. {}"
        ).format(UNCOVERED)
    )
    measured, reasons = measured_of(runs, "spatial_gates")
    yield from reasons
    if measured:
        yield from _of_runs(measured)


def _of_runs(measured: Sequence[tuple[str, SpatialGatesResult]]) -> Iterator[Block]:
    yield Table(
        "Bounds of spatial gates and what was measured",
        (
            "Model",
            "Clip c, temperature τ",
            "Largest gate",
            "its bound",
            "Share on personal data over its bound, at worst",
            "Bound on the lift of a layer",
            "Bounds hold",
        ),
        tuple(_row(*each) for each in measured),
    )
    for name, gates in measured:
        yield token_lifts(f"Spatial gates, {name}", (gates.overall, *gates.layers), "Layer")
        controls = both(gates.planted, gates.null)
        yield Controls((*controls, *both(gates.matched_planted, gates.matched_null, "matched")))
    first = measured[0][1]
    yield How(
        "results[].spatial_gates",
        "CBAM: Woo et al. 2018. A position’s share is its gate over the sum of the layer’s gates. "
        f"Nulls and intervals are those of attention: {first.permutations} permutations, "
        f"{first.resamples} resamples, seed {first.seed}. What gates multiply is not bounded, and "
        "a position of a deep layer sees its neighbours.",
    )


def _row(name: str, gates: SpatialGatesResult) -> Row:
    c, largest = gates.certificate, number(gates.certificate.largest_gate)
    if c.logit_bound is None or c.largest_gate_bound is None:
        return name, f"no clip, {c.temperature:g}", largest, Span("no bound", 4)
    return (
        name,
        f"{c.logit_bound:g}, {c.temperature:g}",
        largest,
        round_up(c.largest_gate_bound, 3),
        percent(c.share_ratio),
        UNDEFINED if c.lift_bound is None else round_up(c.lift_bound, 2),
        "yes" if c.holds else "NO",
    )


CHAPTER = Chapter(
    name="spatial_gates",
    place=55,
    title="Gates that weigh positions",
    body=body,
    asks=Question(
        "Do gates focus on personal data?",
        "Spatial gates on personal data, compared with other positions and with their bound.",
        finding,
    ),
    figures=(
        Figure(
            "spatial_gates.overall.permuted.lift",
            "lift of spatial gates",
            higher_is_worse=True,
        ),
        Figure(
            "spatial_gates.overall.matched.lift",
            "lift of spatial gates over like positions nearby",
            higher_is_worse=True,
        ),
        Figure(
            "spatial_gates.certificate.lift_bound",
            "proved bound on the lift of spatial gates",
            "guarantee",
            higher_is_worse=True,
        ),
    ),
)
