"""Plots of explanations against what removing words does, and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes

from attnpriv.estimates import Estimate
from attnpriv.report.plots.drawing import (
    DASHES,
    SERIES,
    SOFT,
    Row,
    as_svg,
    canvas,
    errors,
    forest,
    series_style,
)

if TYPE_CHECKING:
    from attnpriv.audit.faithfulness import RankingFaithfulness
    from attnpriv.audit.measures import AuditResult

RANDOM = "random"


def agreement_forest(results: Sequence[AuditResult]) -> str:
    """How alike integrated gradients and each of two others rank the words."""
    rows = []
    for kind in ("attention", "leaving one out"):
        for run, result in enumerate(results):
            rank, other = result.faithfulness.rank_correlation, result.occlusion
            if kind == "attention":
                row = Row(kind, run, result.name, rank.mean, (rank.null_low, rank.null_high))
            else:
                null = other.null_low, other.null_high
                row = Row(kind, run, result.name, other.rank_correlation, null)
            rows.append(row)
    label = "rank correlation with integrated gradients (1: same order); grey: what chance gives"
    title = "Rank correlation with integrated gradients"
    return forest("agreement", title, rows, label, 0.0)


def removal_curves(result: AuditResult, number: int) -> str:
    """Comprehensiveness and sufficiency at each share of the words, one line a ranking."""
    measured = result.faithfulness
    panels = {
        "comprehensiveness: higher is better": [r.comprehensiveness for r in measured.rankings],
        "sufficiency: lower is better": [r.sufficiency for r in measured.rankings],
    }
    with canvas(7.2, 2.9, 1, 2) as (figure, both):
        for axes, (title, curves) in zip(both, panels.items(), strict=True):
            for i, (ranking, curve) in enumerate(zip(measured.rankings, curves, strict=True)):
                _draw_curve(axes, i, ranking, curve)
            axes.set_title(title)
            axes.set_xticks(range(len(measured.percents)), [f"{p} %" for p in measured.percents])
            axes.set_xlabel("words removed" if axes is both[0] else "words left")
        both[0].set_ylabel("fall of the probability")
        handles, names = both[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4)
        return as_svg(
            figure,
            f"removal{number}",
            f"Comprehensiveness and sufficiency of {result.name}",
            map(_in_words, measured.rankings),
        )


def _draw_curve(
    axes: Axes, series: int, ranking: RankingFaithfulness, curve: Sequence[Estimate]
) -> None:
    style = {**series_style(series), "linestyle": DASHES[series % SERIES]}
    if ranking.ranking == RANDOM:
        style |= {"color": SOFT}
    offsets = [x + 0.05 * (series - 1) for x in range(len(curve))]  # intervals stand side by side
    values = [each.value or 0.0 for each in curve]
    axes.errorbar(
        offsets, values, yerr=errors(curve), capsize=2, elinewidth=0.8, linewidth=1.3,
        label=ranking.ranking.replace("_", " "), **style,
    )  # fmt: skip


def _in_words(ranking: RankingFaithfulness) -> str:
    means = ranking.comprehensiveness_aopc.value or 0.0, ranking.sufficiency_aopc.value or 0.0
    name = ranking.ranking.replace("_", " ")
    return f"{name}: comprehensiveness {means[0]:.3f}, sufficiency {means[1]:.3f} on average"
