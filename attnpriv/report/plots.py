"""Plots as inline SVG: same numbers, same bytes; nothing loaded, no dates, no ids shared."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnpriv.audit.results import AuditResult, Estimate

# Okabe and Ito's palette, told apart with any colour vision; markers repeat the distinction.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vP*"
LEVELS = 21  # colours of a heatmap
STYLE: Any = {
    "svg.hashsalt": "attnpriv",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#5b6673",
    "axes.labelcolor": "#1c2733",
    "axes.grid": True,
    "grid.color": "#e3e8ee",
    "axes.axisbelow": True,
}


def lift_forest(results: Sequence[AuditResult]) -> str:
    """Overall attention lift and IG lift of each run, with intervals and the null's range."""
    entries = [
        (f"{result.name}: {kind}", run, lift.lift, lift.null_low or 0.0, lift.null_high or 0.0)
        for run, result in enumerate(results)
        for kind, lift in (
            ("attention", result.attention.overall),
            ("integrated gradients", result.attribution.lift),
        )
        if lift.lift.value is not None
    ]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.75 + 0.42 * max(len(entries), 1)), layout="constrained")
        axes = figure.subplots()
        for row, (_, run, lift, low, high) in enumerate(entries):
            axes.barh(row, high - low, left=low, height=0.7, color="#d5dbe3")
            axes.errorbar(
                [lift.value or 0.0], [row], xerr=_errors([lift]), capsize=3, **_run_style(run)
            )
        axes.axvline(1, color="#5b6673", linewidth=1, linestyle=":")
        axes.set_yticks(range(len(entries)), [entry[0] for entry in entries])
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("lift on personal data (1 = like an average token); grey: shuffled labels")
        return _svg(
            figure,
            "lift",
            "Lift on personal data of "
            + "; ".join(f"{name} {lift.value:.2f}" for name, _, lift, _, _ in entries),
        )


def head_heatmap(result: AuditResult, index: int) -> str:
    """Lift of each head, layer by layer; a dot marks those beyond chance after correction."""
    heads = result.attention.heads
    layers, width = heads[-1].layer + 1, heads[-1].head + 1
    values = np.array([h.content.lift.value or np.nan for h in heads]).reshape(layers, width)
    significant = [(h.content.p_adjusted or 1.0) < 0.05 for h in heads]
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(
            figsize=(1.5 + 0.52 * width, 1.0 + 0.4 * max(layers, 2)), layout="constrained"
        )
        axes = figure.subplots()
        # The same colours in every run, and few enough that nothing becomes an embedded bitmap.
        colours = mpl.colormaps["RdBu_r"].resampled(LEVELS)
        mesh = axes.pcolormesh(values, cmap=colours, vmin=0, vmax=2)
        axes.invert_yaxis()
        for head, marked in zip(heads, significant, strict=True):
            _annotate(axes, head.head, head.layer, head.content.lift.value, marked)
        axes.set_xticks(np.arange(width) + 0.5, [str(h + 1) for h in range(width)])
        axes.set_yticks(np.arange(layers) + 0.5, [str(layer + 1) for layer in range(layers)])
        axes.set_xlabel("head")
        axes.set_ylabel("layer")
        figure.colorbar(mesh, ax=axes, label="lift", ticks=(0, 0.5, 1, 1.5, 2), extend="max")
        return _svg(
            figure,
            f"heads{index}",
            f"Lift of each attention head of {result.name}: {np.nanmin(values):.2f} to "
            f"{np.nanmax(values):.2f}, {sum(significant)} of {len(heads)} beyond chance"
            if np.isfinite(values).any()
            else f"No lift could be measured for {result.name}",
        )


def membership_roc(results: Sequence[AuditResult]) -> str:
    """ROC of the membership test on logarithmic axes, where the exposed few would show."""
    tested = [(i, r.name, r.membership) for i, r in enumerate(results) if r.membership]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 4.0), layout="constrained")
        axes = figure.subplots()
        floor = min((1 / max(m.members, m.non_members) for _, _, m in tested), default=1e-3)
        axes.plot([floor, 1], [floor, 1], color="#5b6673", linestyle=":", label="guessing")
        for run, name, test in tested:
            fpr, tpr = np.array(test.roc).T
            shown = (fpr > 0) & (tpr > 0)
            axes.plot(
                fpr[shown], tpr[shown], color=_colour(run), label=name, drawstyle="steps-post"
            )
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.1))
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.legend(frameon=False, loc="lower right")
        return _svg(
            figure,
            "roc",
            "Membership ROC: "
            + "; ".join(f"{name} AUC {test.auc.value:.3f}" for _, name, test in tested),
        )


def robustness_curves(results: Sequence[AuditResult]) -> str:
    """Accuracy against the radius of the attack."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.9, 4.0), layout="constrained")
        axes = figure.subplots()
        for run, result in enumerate(results):
            attack = result.robustness
            scales = [0.0, *(at.scale for at in attack.radii)]
            for name, estimates, line in (
                ("FGSM or PGD", [attack.clean, *(at.strongest for at in attack.radii)], "-"),
                ("FGSM alone", [attack.clean, *(at.fgsm for at in attack.radii)], ":"),
            ):
                axes.errorbar(
                    scales,
                    [e.value or 0.0 for e in estimates],
                    yerr=_errors(estimates) if line == "-" else None,
                    linestyle=line,
                    capsize=3,
                    label=f"{result.name}: {name}",
                    **_run_style(run),
                )
        axes.set_ylim(0, 1)
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.set_xlabel("radius (L∞), in standard deviations of a coordinate")
        axes.set_ylabel("accuracy")
        axes.legend(frameon=False)
        return _svg(
            figure,
            "robustness",
            "Accuracy under attack: "
            + "; ".join(
                f"{r.name} from {r.robustness.clean.value or 0:.2f} to "
                f"{r.robustness.radii[-1].strongest.value or 0:.2f}"
                for r in results
            ),
        )


def certified_weights(results: Sequence[AuditResult]) -> str:
    """The largest weight of every head beside the proved bound."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.85 + 0.45 * len(results)), layout="constrained")
        axes = figure.subplots()
        for run, result in enumerate(results):
            largest = [head.largest_weight for head in result.attention.heads]
            axes.plot(largest, [run] * len(largest), "|", markersize=12, color=_colour(run))
            bound = result.attention.certificate.largest_weight_bound
            if bound is not None:
                axes.plot([bound], [run], marker="D", color="#1c2733", linestyle="none")
                axes.annotate(
                    f"proved {bound:.3f}", (bound, run), (6, 6), textcoords="offset points"
                )
        axes.set_yticks(range(len(results)), [r.name for r in results])
        axes.set_ylim(len(results) - 0.5, -0.7)
        axes.set_xlim(0, 1.08)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("largest attention weight of each head; diamond: proved bound")
        return _svg(
            figure,
            "certified",
            "Largest attention weight: "
            + "; ".join(
                f"{r.name} {r.attention.certificate.largest_weight:.3f}, "
                + (
                    "no bound"
                    if r.attention.certificate.largest_weight_bound is None
                    else f"bound {r.attention.certificate.largest_weight_bound:.3f}"
                )
                for r in results
            ),
        )


def _annotate(axes: Axes, x: int, y: int, value: float | None, marked: bool) -> None:
    if value is None:
        return
    axes.text(
        x + 0.5,
        y + 0.5,
        f"{value:.2f}" + ("•" if marked else ""),
        ha="center",
        va="center",
        fontsize=7,
        color="white" if abs(value - 1) > 0.65 else "#1c2733",
    )


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Distances below and above, as matplotlib wants them."""
    values = [(e.value or 0.0, e.low or 0.0, e.high or 0.0) for e in estimates]
    return [[max(0.0, v - low) for v, low, _ in values], [max(0.0, h - v) for v, _, h in values]]


def _colour(run: int) -> str:
    return COLOURS[run % len(COLOURS)]


def _run_style(run: int) -> dict[str, Any]:
    return {"color": _colour(run), "marker": MARKERS[run % len(MARKERS)]}


def _svg(figure: Figure, name: str, description: str) -> str:
    """The figure as an SVG element with a text for who cannot see; ids carry the plot's name."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
