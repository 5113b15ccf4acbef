"""The section that holds runs against each other: differences, record by record."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.estimates import UNDEFINED
from attnpriv.report.blocks import UNCOVERED, Block, How, Plot, Row, Span, Table, Text, est
from attnpriv.report.chapters import FIGURES
from attnpriv.report.drawing import Row as Line
from attnpriv.report.drawing import as_svg, canvas, draw_forest, row_in_words, short
from attnpriv.report.formats import number

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.results import Audit

PANELS = 3  # side by side, one a figure
LONGEST_TITLE = 34  # characters, in a line


def differences(audit: Audit) -> Iterator[Block]:
    """All paired differences, drawn and listed."""
    yield Text(
        Markup(
            "Each difference is taken record by record on the same records and the same resamples, "
            "which makes it sharper than two intervals side by side. An interval that holds 0 "
            "shows no difference; it does not show that there is none. {}"
        ).format(UNCOVERED)
    )
    compared = [comparison for comparison in audit.comparisons if comparison.differences]
    if compared:
        names = [result.name for result in audit.results]
        caption = "Paired differences with 95 % intervals, each panel in its figure’s own unit."
        yield Plot(_forest(compared, names), "Plot: paired differences", caption)
    yield Table(
        "Paired differences",
        ("Models", "Figure", "Better", "First", "Second", "First less second", "Records"),
        tuple(row for comparison in audit.comparisons for row in _rows(comparison)),
    )
    options = audit.options
    yield How(
        "comparisons[]",
        f"Bootstrap over records, {options['resamples']} resamples, seed {options['seed']}; both "
        "models on the same resamples. Several differences are not corrected for each other.",
    )


def words_of(path: str) -> str:
    """What people call a figure."""
    return FIGURES[path].words if path in FIGURES else path


def _rows(comparison: Comparison) -> Iterator[Row]:
    pair = f"{comparison.run} − {comparison.against}"
    if comparison.not_run:
        yield pair, Span(f"not compared: {comparison.not_run}", 6)
        return
    ratio = f"{comparison.run} / {comparison.against}"
    lift = "attention lift, as a ratio"
    yield ratio, lift, "lower", "", "", est(comparison.lift_ratio, 3), ""
    for each in comparison.differences:
        figure = FIGURES.get(each.measure)
        yield (
            pair,
            words_of(each.measure),
            figure.better if figure else "",
            number(each.ours, 4),
            number(each.theirs, 4),
            est(each.difference, 4),
            str(each.documents),
        )


def _forest(comparisons: Sequence[Comparison], runs: Sequence[str]) -> Markup:
    """One panel a figure, since their units differ; each run keeps its colour."""
    measures = list(dict.fromkeys(d.measure for c in comparisons for d in c.differences))
    lines = -(-len(measures) // PANELS)
    panels = {m: [_line(c, m, runs.index(c.run)) for c in comparisons] for m in measures}
    height = lines * (0.72 + 0.2 * len(comparisons))
    with canvas(7.2, height, lines, PANELS) as (figure, grid):
        for place, axes in enumerate(grid.flat):
            if place >= len(measures):
                axes.remove()
                continue
            draw_forest(axes, panels[measures[place]], 0.0)
            axes.set_title(textwrap.fill(words_of(measures[place]), LONGEST_TITLE), fontsize=8)
            axes.locator_params(axis="x", nbins=3)
            axes.tick_params(axis="y", labelleft=place % PANELS == 0)
        words = (
            f"{words_of(measure)}: {row_in_words(row)}"
            for measure, rows in panels.items()
            for row in rows
        )
        return as_svg(figure, "differences", "Paired differences between models", words)


def _line(comparison: Comparison, measure: str, number_: int) -> Line:
    pair = f"{short(comparison.run)} − {short(comparison.against)}"
    found = {each.measure: each.difference for each in comparison.differences}
    return Line(pair, number_, "difference", found.get(measure, UNDEFINED))
