"""The proved bound on attention, if there is one, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import UNCOVERED, Block, How, Plot, Row, Span, Table, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import INK, as_svg, canvas, marker, series_style, short
from attnpriv.report.findings import NO_ACTION, Finding, not_run
from attnpriv.report.formats import UNDEFINED, number, percent
from attnpriv.report.measured import measured_of
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.attention import AttentionResult
    from attnpriv.audit.measures import AuditResult


def finding(result: AuditResult) -> Finding:
    """Whether there is a bound, and whether it held."""
    if isinstance(result.attention, NotRun):
        name = "The bound on attention"
        return not_run("certificate", name, result.attention.not_run, NO_ACTION)
    certificate = result.attention.certificate
    bound = certificate.largest_weight_bound
    if bound is None:
        return Finding(
            "warn",
            "Attention has no bound",
            "The logits are not clipped: one token can take all the attention "
            f"(measured: {certificate.largest_weight:.3f}).",
            "certificate",
            "Train with a clip where no single word may dominate an answer.",
        )
    measured = (
        f"Largest weight measured {certificate.largest_weight:.3f}, "
        f"proved limit {round_up(bound, 3)}"
    )
    if not certificate.holds:
        return Finding(
            "bad",
            "ATTENTION EXCEEDS ITS PROVED BOUND",
            f"This is a defect. {measured}.",
            "certificate",
            "Do not release this model. Report the defect.",
        )
    return Finding(
        "good",
        "Attention stays within its proved bound",
        f"{measured}. That limits how much one word weighs; it is not differential privacy.",
        "certificate",
        "Keep the clip and the temperature whenever you train this model further.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Bounds, and how near the measured weights came."""
    yield Text(
        Markup(
            "Where logits are clipped, a formula limits how much of the attention any one word can "
            "get, whatever the text. The audit looks for a weight beyond that limit; finding one "
            "would be a defect. {}"
        ).format(UNCOVERED)
    )
    measured, reasons = measured_of(runs, "attention")
    yield from reasons
    if measured:
        yield from _of_attention(measured)


def _of_attention(measured: Sequence[tuple[str, AttentionResult]]) -> Iterator[Block]:
    yield Plot(
        _weights(measured),
        "Plot: largest weights and their bound",
        "One mark for each head, its layers from top to bottom. The bound is that of the record in "
        "which the largest weight was found. The tables of heads below give the largest weight of "
        "every head.",
    )
    yield Table(
        "Bounds and what was measured",
        (
            "Model",
            "Clip c, temperature τ",
            "Largest weight",
            "its bound",
            "Weight over bound, at worst",
            "Mass on personal data over bound, at worst",
            "Row lift of a head, highest",
            "its bound",
            "Bounds hold",
        ),
        tuple(_row(*each) for each in measured),
    )
    yield How(
        "results[].attention.certificate",
        "Ratios are the worst over all records, layers, heads and queries, each against the bound "
        "of its own record. The row lift counts special tokens, as its bound does, so it is not "
        "the lift that the next section shows. A bounded forward pass is not differentially "
        "private, and a bound on one layer’s weights does not bound what the whole network passes "
        "on.",
    )


def _row(name: str, a: AttentionResult) -> Row:
    c = a.certificate
    lifts = [head.row_lift for head in a.heads if head.row_lift is not None]
    highest, largest = number(max(lifts, default=None), 2), number(c.largest_weight)
    if c.logit_bound is None or c.largest_weight_bound is None:
        no_bound = Span("no bound: one token can take all", 3)
        clip = f"no clip, {c.temperature:g}"
        return name, clip, largest, no_bound, highest, Span("no bound", 2)
    return (
        name,
        f"{c.logit_bound:g}, {c.temperature:g}",
        largest,
        round_up(c.largest_weight_bound, 3),
        percent(c.weight_ratio),
        percent(c.mass_ratio),
        highest,
        UNDEFINED if c.row_lift_bound is None else round_up(c.row_lift_bound, 2),
        "yes" if c.holds else "NO",
    )


def _weights(runs: Sequence[tuple[str, AttentionResult]]) -> Markup:
    """The largest weight of every head, layer by layer, beside the proved bound."""
    bounded = any(a.certificate.largest_weight_bound is not None for _, a in runs)
    with canvas(7.2, 0.7 + 0.55 * len(runs)) as (figure, axes):
        for number, (_, attention) in enumerate(runs):
            _draw(axes, attention, number)
        axes.set_yticks(range(len(runs)), [short(name) for name, _ in runs])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1.03), ylim=(len(runs) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("largest attention weight of each head, its layers from top to bottom")
        if bounded:
            diamond = marker(marker="D", color=INK)
            figure.legend([diamond], ["proved bound"], loc="outside upper right")
        title = "Largest attention weights and their bound"
        return as_svg(figure, "certified", title, (_in_words(*each) for each in runs))


def _draw(axes: Axes, attention: AttentionResult, number: int) -> None:
    heads = attention.heads
    layers = heads[-1].layer + 1
    heights = [number + 0.5 * (h.layer - (layers - 1) / 2) / layers for h in heads]
    style = {**series_style(number), "marker": "|", "markersize": 6}
    axes.plot([head.largest_weight for head in heads], heights, linestyle="none", **style)
    bound = attention.certificate.largest_weight_bound
    if bound is not None:
        axes.plot([bound], [number], marker="D", color=INK, markersize=6, linestyle="none")


def _in_words(name: str, attention: AttentionResult) -> str:
    certificate = attention.certificate
    bound = certificate.largest_weight_bound
    limit = "no bound" if bound is None else f"bound {bound:.3f}"
    return f"{name}: {certificate.largest_weight:.3f}, {limit}"


OF = "attention.certificate"
CHAPTER = Chapter(
    name="certificate",
    place=30,
    title="Proved bounds beside measured weights",
    body=body,
    asks=Question(
        "Is there a proved limit to attention?",
        "The formula for clipped logits, compared with the largest weight found.",
        finding,
    ),
    figures=(
        Figure(
            f"{OF}.largest_weight",
            "largest attention weight",
            "most found",
            digits=3,
            higher_is_worse=True,
            main=True,
        ),
        Figure(
            f"{OF}.largest_weight_bound",
            "proved bound on attention weights",
            "guarantee",
            digits=3,
            higher_is_worse=True,
            main=True,
        ),
        Figure(f"{OF}.weight_ratio", "largest weight over its bound", "most found", digits=3),
        Figure(f"{OF}.mass_ratio", "mass on personal data over its bound", "most found", digits=3),
        Figure(f"{OF}.row_lift_bound", "proved bound on the row lift", "guarantee"),
        Figure(f"{OF}.logit_bound", "clip of the logits", "guarantee"),
        Figure(f"{OF}.temperature", "temperature", "guarantee"),
    ),
)
