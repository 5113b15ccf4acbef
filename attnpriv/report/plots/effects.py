"""Plots of what interventions and attacks do, and of one model against another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from attnpriv.audit.results import NotRun
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.report.plots.drawing import (
    DASHES,
    SERIES,
    SOFT,
    STAND_INS,
    Row,
    as_svg,
    canvas,
    draw_forest,
    errors,
    finite,
    forest,
    row_in_words,
    series_style,
    short,
)

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.effects import EntityEffect
    from attnpriv.audit.leakage.membership import MembershipResult
    from attnpriv.audit.measures import AuditResult

COLUMNS = 3  # of panels, one a measure
KINDS = ("personal data swapped", "other words swapped", "personal data masked")


def counterfactual_forest(result: AuditResult, number: int) -> str:
    """How far answers move, by type of personal data, beside other words."""
    effects = (result.counterfactual.overall, *result.counterfactual.types)
    rows = [
        Row("all types" if not i else each.entity_type, kind, KINDS[kind], effect)
        for i, each in enumerate(effects)
        for kind, effect in enumerate(_changes(each))
    ]
    label = "change of the predicted class's probability"
    title = f"Effect of swapping and masking personal data on {result.name}"
    return forest(f"swap{number}", title, rows, label)


def _changes(each: EntityEffect) -> tuple[Estimate, ...]:
    return each.swap.change, each.swap_null.change, each.mask.change


def comparison_forest(
    comparisons: Sequence[Comparison], runs: Sequence[str], names: dict[str, str]
) -> str:
    """Paired differences, one panel a measure, since their units differ.

    Args:
        comparisons: those that were made, at least one difference in each.
        runs: names of all runs, so that each keeps its colour.
        names: of measures, for people.
    """
    measures = list(dict.fromkeys(d.measure for c in comparisons for d in c.differences))
    lines = -(-len(measures) // COLUMNS)
    panels = {m: [_difference(c, m, runs.index(c.run)) for c in comparisons] for m in measures}
    height = lines * (0.62 + 0.2 * len(comparisons))
    with canvas(7.2, height, lines, COLUMNS) as (figure, grid):
        for number, axes in enumerate(grid.flat):
            if number >= len(measures):
                axes.remove()
                continue
            draw_forest(axes, panels[measures[number]], 0.0)
            axes.set_title(names.get(measures[number], measures[number]), fontsize=8)
            axes.locator_params(axis="x", nbins=3)
            axes.tick_params(axis="y", labelleft=number % COLUMNS == 0)
        words = (
            f"{names.get(measure, measure)}: {row_in_words(row)}"
            for measure, rows in panels.items()
            for row in rows
        )
        return as_svg(figure, "differences", "Paired differences between models", words)


def _difference(comparison: Comparison, measure: str, number: int) -> Row:
    pair = f"{short(comparison.run)} − {short(comparison.against)}"
    found = {each.measure: each.difference for each in comparison.differences}
    return Row(pair, number, "difference", found.get(measure, UNDEFINED))


def membership_roc(results: Sequence[AuditResult]) -> str:
    """ROC of the membership test on logarithmic axes, where the exposed few would show."""
    tested = [
        (i, r.name, r.membership)
        for i, r in enumerate(results)
        if not isinstance(r.membership, NotRun)
    ]
    floor = min(1 / max(m.members, m.non_members) for _, _, m in tested)
    with canvas(4.6, 3.9) as (figure, axes):
        axes.plot([floor, 1], [floor, 1], color=SOFT, linestyle=":", label="guessing")
        for run, name, test in tested:
            fpr, tpr = np.array(test.roc).T
            shown = (fpr > 0) & (tpr > 0)
            style = {"color": STAND_INS[f"s{run % SERIES}"], "linestyle": DASHES[run % SERIES]}
            line = {"label": short(name), "drawstyle": "steps-post"}
            axes.plot(fpr[shown], tpr[shown], **style, **line)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.legend(loc="lower right")
        words = (f"{name}: AUC {_auc(test)}" for _, name, test in tested)
        return as_svg(figure, "roc", "ROC of the membership test", words)


def _auc(test: MembershipResult) -> str:
    return f"{test.auc.value or 0.0:.3f}"


def robustness_curves(results: Sequence[AuditResult]) -> str:
    """Accuracy against the radius of the attack."""
    with canvas(4.9, 3.9) as (figure, axes):
        for run, result in enumerate(results):
            attack = result.robustness
            scales = [0.0, *(at.scale for at in attack.radii)]
            curves = (
                ("FGSM or PGD", [attack.clean, *(at.strongest for at in attack.radii)], "-"),
                ("FGSM alone", [attack.clean, *(at.fgsm for at in attack.radii)], ":"),
            )
            for name, estimates, line in curves:
                axes.errorbar(
                    scales,
                    [e.value or 0.0 for e in estimates],
                    yerr=errors(estimates) if line == "-" else None,
                    linestyle=line,
                    capsize=2.5,
                    label=f"{short(result.name)}: {name}",
                    **series_style(run),
                )
        axes.set_ylim(0, 1.02)
        axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
        axes.set_xlabel("radius (L∞), in standard deviations of a coordinate")
        axes.set_ylabel("accuracy")
        columns = 1 if len(results) == 1 else 2
        figure.legend(loc="outside upper left", ncols=columns, fontsize=8)
        return as_svg(figure, "robustness", "Accuracy under attack", map(_fall, results))


def _fall(result: AuditResult) -> str:
    clean, last = result.robustness.clean, result.robustness.radii[-1].strongest
    ends = finite((clean.value, last.value))
    return f"{result.name}: accuracy from {ends[0]:.2f} to {ends[-1]:.2f}" if ends else result.name
