"""What all plots share: SVG in the page's colours, whatever they are, and the same bytes each time.

A plot is drawn in stand-in colours that ``as_svg`` replaces by the CSS variables of the page, so
that one drawing serves light, dark and paper. Nothing is loaded; there are no dates, and ids carry
the plot's name. Matplotlib takes half a second to import, so nothing does before it draws.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from attnpriv.estimates import Estimate
from attnpriv.report.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 7  # told apart with any colour vision; markers and dashes repeat the distinction
LEVELS = 11  # colours of a heatmap
MARKERS = "osD^vP*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
LONGEST_NAME = 24  # characters; longer names are cut in plots, never in tables
NAMES = (
    "ink",
    "soft",
    "rule",
    "null",
    *(f"s{i}" for i in range(SERIES)),
    *(f"d{i}" for i in range(LEVELS)),
)
STAND_INS = {name: f"#0101{number:02x}" for number, name in enumerate(NAMES, 1)}
INK, SOFT, RULE, NULL = (STAND_INS[name] for name in ("ink", "soft", "rule", "null"))
STYLE: Any = {
    "svg.hashsalt": "attnpriv",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # names come from outside
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "xtick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.color": SOFT,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Row:
    """One estimate in a forest plot.

    Attributes:
        group: what stands at the left; rows of the same group stand together.
        series: decides colour and marker.
        name: of the series.
        estimate: the point and its interval.
        null: the range that chance gives, where it is known.
    """

    group: str
    series: int
    name: str
    estimate: Estimate
    null: tuple[float | None, float | None] = (None, None)


@contextmanager
def canvas(width: float, height: float, *panels: int) -> Iterator[tuple[Figure, Any]]:
    """A figure of that size in inches, with its axes."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE), warnings.catch_warnings():
        # The reader's own fonts draw the text; what the fonts here lack does not matter.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(*panels)


def draw_forest(axes: Axes, rows: Iterable[Row], reference: float | None) -> None:
    """Points with intervals, group by group; rows without a number leave a gap.

    Args:
        axes: to draw on.
        rows: those of one group together.
        reference: where nothing would be found; a dotted line.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    ticks, at = [], 0.0
    for group in groups.values():
        ticks.append(at + (len(group) - 1) / 2)
        for row in group:
            _draw_row(axes, row, at)
            at += 1
        at += 0.6
    if reference is not None:
        axes.axvline(reference, color=SOFT, linewidth=1, linestyle=":")
    axes.set_yticks(ticks, [short(group) for group in groups])
    axes.set_ylim(at - 0.9, -0.7)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _draw_row(axes: Axes, row: Row, at: float) -> None:
    low, high = row.null
    if low is not None and high is not None:
        axes.barh(at, high - low, left=low, height=0.62, color=NULL)
    if row.estimate.value is not None:
        style = {**series_style(row.series), "linestyle": "none"}
        value = [row.estimate.value]
        axes.errorbar(value, [at], xerr=errors([row.estimate]), capsize=2.5, **style)


def forest(
    key: str, title: str, rows: Sequence[Row], label: str, reference: float | None = None
) -> Markup:
    """A forest plot with a legend of its series, where there are several."""
    groups, series = len({row.group for row in rows}), {row.series: row.name for row in rows}
    height = 0.75 + 0.2 * len(rows) + 0.12 * groups + (0.25 if len(series) > 1 else 0)
    with canvas(7.2, height) as (figure, axes):
        draw_forest(axes, rows, reference)
        axes.set_xlabel(label)
        legend(figure, series)
        return as_svg(figure, key, title, map(row_in_words, rows))


def legend(figure: Figure, series: dict[int, str]) -> None:
    """The names of the series above the plot; nothing where there is but one."""
    if len(series) < 2:
        return
    handles = [marker(**series_style(number)) for number in series]
    names = [short(name) for name in series.values()]
    columns = min(len(series), 4)
    figure.legend(handles, names, loc="outside upper left", ncols=columns, handletextpad=0.2)


def marker(**style: Any) -> Any:
    """What stands in a legend for points without a line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none", **style)


def row_in_words(row: Row) -> str:
    """A row for those who cannot see it."""
    estimate = row.estimate
    if estimate.value is None:
        return f"{row.group}, {row.name}: no figure"
    return (
        f"{row.group}, {row.name}: {estimate.value:.3g} "
        f"({estimate.low or 0.0:.3g} to {estimate.high or 0.0:.3g})"
    )


def errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Distances below and above, as matplotlib wants them."""
    values = [(e.value or 0.0, e.low or 0.0, e.high or 0.0) for e in estimates]
    return [[max(0.0, v - low) for v, low, _ in values], [max(0.0, h - v) for v, _, h in values]]


def series_style(series: int) -> dict[str, Any]:
    """Colour and marker of a series."""
    colour = STAND_INS[f"s{series % SERIES}"]
    return {"color": colour, "marker": MARKERS[series % SERIES], "markersize": 4.5}


def short(name: str) -> str:
    """A name that fits beside a plot, in one line: its middle is left out where it is long.

    >>> short("private"), short("a-very-long-name-of-a-run-folder")
    ('private', 'a-very-long-…-run-folder')
    """
    name = printable(name)
    if len(name) <= LONGEST_NAME:
        return name
    half = LONGEST_NAME // 2
    return f"{name[:half]}…{name[1 - half :]}"


def as_svg(figure: Figure, key: str, title: str, description: Iterable[str]) -> Markup:
    """The figure as an SVG element with a title and a text for those who cannot see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{key}-", svg)
    for name, colour in STAND_INS.items():
        svg = svg.replace(colour, f"var(--{name})")
    head, _, body = svg.partition(">")
    words = f"<title id='{key}-title'>{escape(printable(title))}</title><desc id='{key}-desc'>"
    words += f"{escape(printable('; '.join(description)))}</desc>"
    return Markup(f'{head} role="img" aria-labelledby="{key}-title {key}-desc">{words}{body}')
