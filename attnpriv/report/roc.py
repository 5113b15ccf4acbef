"""ROC curves beside what each claim allows: plainly, and where the exposed few would show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from attnpriv.estimates import Estimate
from attnpriv.report.drawing import DASHES, SERIES, SOFT, STAND_INS, as_svg, canvas, short
from attnpriv.rounding import round_up
from attnpriv.verdicts import Claim, allowed_tpr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = tuple(10 ** (-4 * (1 - step / 80)) for step in range(81))  # FPRs of what is drawn


@dataclass(frozen=True)
class Curve:
    """A ROC curve.

    Attributes:
        series: decides colour and dashes.
        name: in the legend.
        auc: the area under it.
        points: (FPR, TPR), from left to right.
    """

    series: int
    name: str
    auc: Estimate
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bound:
    """What a claim allows, in the colour of a series."""

    series: int
    name: str
    claim: Claim


def draw_roc(
    key: str, title: str, curves: Sequence[Curve], bounds: Sequence[Bound], smallest: float
) -> Markup:
    """Curves as steps, on plain axes and on logarithmic ones, which begin at the smallest rate."""
    with canvas(7.2, 3.9, 1, 2) as (figure, both_axes):
        for axes in both_axes:
            axes.plot([0, *GRID], [0, *GRID], color=SOFT, linestyle=":", label="guessing")
            for curve in curves:
                _draw_curve(axes, curve)
            for bound in bounds:
                _draw_bound(axes, bound)
            axes.set_xlabel("false positive rate")
        plain, logarithmic = both_axes
        plain.set(xlim=(0, 1), ylim=(0, 1.02))
        plain.set_ylabel("true positive rate")
        plain.legend(loc="lower right")
        logarithmic.set(xscale="log", yscale="log", xlim=(smallest, 1), ylim=(smallest, 1.1))
        for axis in (logarithmic.xaxis, logarithmic.yaxis):
            axis.set_major_formatter("{x:g}")
        return as_svg(figure, key, title, _in_words(curves, bounds))


def _draw_curve(axes: Axes, curve: Curve) -> None:
    number = curve.series % SERIES
    style: Any = {"color": STAND_INS[f"s{number}"], "linestyle": DASHES[number]}
    # On logarithmic axes a point at 0 has no place, and would take the whole line with it.
    shown = [(fpr, tpr) for fpr, tpr in curve.points if fpr > 0 and tpr > 0]
    axes.plot(*zip(*shown, strict=True), label=short(curve.name), drawstyle="steps-post", **style)


def _draw_bound(axes: Axes, bound: Bound) -> None:
    """A thin line with a fill above."""
    colour = STAND_INS[f"s{bound.series % SERIES}"]
    allowed = [allowed_tpr(bound.claim.profile, fpr) for fpr in GRID]
    label = f"{short(bound.name)}: most that ε allows"
    axes.plot(GRID, allowed, label=label, color=colour, linewidth=0.8, alpha=0.7)
    axes.fill_between(GRID, allowed, 1.1, color=colour, alpha=0.06, linewidth=0)


def _in_words(curves: Sequence[Curve], bounds: Sequence[Bound]) -> Iterator[str]:
    for curve in curves:
        yield f"{curve.name}: AUC {curve.auc.value or 0.0:.3f}"
    for bound in bounds:
        yield f"{bound.name}: an AUC of at most {round_up(bound.claim.auc, 3)} allowed"
