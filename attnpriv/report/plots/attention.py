"""Plots of where attention goes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from numpy.typing import NDArray

from attnpriv.report.plots.drawing import (
    INK,
    LEVELS,
    STAND_INS,
    Row,
    as_svg,
    canvas,
    forest,
    series_style,
    short,
)

if TYPE_CHECKING:
    from attnpriv.audit.attention import Head
    from attnpriv.audit.lift import Lift
    from attnpriv.audit.measures import AuditResult

SHOWN_LIFT = 2.0  # the end of the colours; they are the same in every run


def lift_forest(results: Sequence[AuditResult]) -> str:
    """Every lift on personal data of each run, attention and attribution side by side."""
    rows = [
        Row(kind, run, result.name, lift.lift, _null(lift))
        for kind in _lifts(results[0])
        for run, result in enumerate(results)
        for lift in (_lifts(result)[kind],)
    ]
    label = "lift on personal data (1: like other words); grey: what chance gives"
    return forest("lift", "Lift on personal data by measure and model", rows, label, 1.0)


def _lifts(result: AuditResult) -> dict[str, Lift]:
    return {
        "attention": result.attention.overall,
        "attention, matched": result.attention.matched,
        "rollout": result.flow.rollout.permuted,
        "norm-weighted": result.flow.norm_weighted.permuted,
        "integrated gradients": result.attribution.lift,
        "leaving one out": result.occlusion.lift.permuted,
    }


def type_forest(results: Sequence[AuditResult]) -> str | None:
    """The lift of each entity type; None where no type is known."""
    rows = [
        Row(each.name, run, result.name, each.permuted.lift, _null(each.permuted))
        for run, result in enumerate(results)
        for each in result.attention.entity_types
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row.group)
    label = "attention lift (1: like other words); grey: what chance gives"
    return forest("types", "Attention lift by type of personal data", rows, label, 1.0)


def _null(lift: Lift) -> tuple[float | None, float | None]:
    return lift.null_low, lift.null_high


def head_heatmap(result: AuditResult, number: int) -> str:
    """Lift of each head, layer by layer; a dot marks those beyond chance after correction."""
    heads = result.attention.heads
    layers, width = heads[-1].layer + 1, heads[-1].head + 1
    values = np.array([_or_nan(head) for head in heads]).reshape(layers, width)
    marked = [(head.content.p_adjusted or 1.0) < 0.05 for head in heads]
    with canvas(1.5 + 0.47 * width, 0.75 + 0.34 * max(layers, 2)) as (figure, axes):
        axes.grid(visible=False)
        colours = ListedColormap([STAND_INS[f"d{i}"] for i in range(LEVELS)])
        mesh = axes.pcolormesh(values, cmap=colours, vmin=0, vmax=SHOWN_LIFT)
        for head, mark in zip(heads, marked, strict=True):
            _annotate(axes, head, mark)
        axes.set_xticks(np.arange(width) + 0.5, [str(head + 1) for head in range(width)])
        axes.set_yticks(np.arange(layers) + 0.5, [str(layer + 1) for layer in range(layers)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        axes.set(xlabel="head", ylabel="layer")
        bar = figure.colorbar(mesh, ax=axes, ticks=(0, 1, 2), aspect=12)
        bar.set_label("lift")
        bar.ax.set_yticklabels(["0", "1", "≥ 2"])
        bar.outline.set_visible(False)
        return as_svg(
            figure,
            f"heads{number}",
            f"Attention lift of each head of {result.name}",
            _heads_in_words(values, sum(marked)),
        )


def _or_nan(head: Head) -> float:
    value = head.content.lift.value
    return np.nan if value is None else value


def _heads_in_words(values: NDArray[np.float64], marked: int) -> list[str]:
    if not np.isfinite(values).any():
        return ["no lift could be measured"]
    spread = f"from {np.nanmin(values):.2f} to {np.nanmax(values):.2f}"
    return [spread, f"{marked} of {values.size} heads beyond chance"]


def _annotate(axes: Axes, head: Head, marked: bool) -> None:
    value = head.content.lift.value
    if value is not None:
        text = f"{value:.2f}" + ("•" if marked else "")
        at = head.head + 0.5, head.layer + 0.5
        axes.text(*at, text, ha="center", va="center", fontsize=7, color=INK, in_layout=False)


def certified_weights(results: Sequence[AuditResult]) -> str:
    """The largest weight of every head, layer by layer, beside the proved bound."""
    with canvas(7.2, 0.7 + 0.55 * len(results)) as (figure, axes):
        for run, result in enumerate(results):
            heads = result.attention.heads
            layers = heads[-1].layer + 1
            heights = [run + 0.5 * (h.layer - (layers - 1) / 2) / layers for h in heads]
            largest = [head.largest_weight for head in heads]
            style = {**series_style(run), "marker": "|", "markersize": 6}
            axes.plot(largest, heights, linestyle="none", **style)
            bound = result.attention.certificate.largest_weight_bound
            if bound is not None:
                axes.plot([bound], [run], marker="D", color=INK, markersize=6, linestyle="none")
        axes.set_yticks(range(len(results)), [short(result.name) for result in results])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(0, 1.03), ylim=(len(results) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("largest attention weight of each head, its layers from top to bottom")
        marker = mpl.lines.Line2D([], [], marker="D", color=INK, linestyle="none")
        if any(r.attention.certificate.largest_weight_bound is not None for r in results):
            figure.legend([marker], ["proved bound"], loc="outside upper right")
        return as_svg(
            figure, "certified", "Largest attention weights and their bound", map(_bound, results)
        )


def _bound(result: AuditResult) -> str:
    certificate = result.attention.certificate
    bound = certificate.largest_weight_bound
    limit = "no bound" if bound is None else f"bound {bound:.3f}"
    return f"{result.name}: {certificate.largest_weight:.3f}, {limit}"
