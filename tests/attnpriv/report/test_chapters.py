"""Chapters against the measures, and figures against the reports that they are read from."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter

import pytest

from attnpriv.audit.measures import MEASURES
from attnpriv.audit.results import Audit, NotRun
from attnpriv.report import as_report
from attnpriv.report.chapters import CHAPTERS, FIGURES, MAIN, QUESTIONS
from attnpriv.report.document import Report, make_report, report_text
from attnpriv.report.gates.lookup import find
from attnpriv.report.provenance import Provenance


@pytest.fixture(scope="module")
def report(synthetic: Audit, origin: Provenance) -> Report:
    return make_report(synthetic, origin)


def test_each_measure_has_a_chapter_and_no_two_share_a_place() -> None:
    assert {measure.name for measure in MEASURES} <= {chapter.name for chapter in CHAPTERS}
    assert len({chapter.place for chapter in CHAPTERS}) == len(CHAPTERS)
    assert list(QUESTIONS) == [chapter.name for chapter in CHAPTERS if chapter.asks]


def test_each_figure_is_named_once() -> None:
    figures = [figure for chapter in CHAPTERS for figure in chapter.figures]
    assert not [path for path, n in Counter(each.path for each in figures).items() if n > 1]
    assert not [words for words, n in Counter(each.words for each in figures).items() if n > 1]


@pytest.mark.parametrize("path", FIGURES)
def test_a_figure_is_the_same_before_and_after_reading(report: Report, path: str) -> None:
    """As a report stands after the audit, and as ``attnpriv gate`` reads it."""
    read = as_report(json.loads(report_text(report)))
    figure = FIGURES[path]
    for fresh, old in zip(report.results, read.results, strict=True):
        assert figure.of(fresh) == figure.of(old)
        assert figure.text(fresh) == figure.text(old)


@pytest.mark.parametrize("figure", MAIN, ids=lambda figure: figure.path)
def test_a_main_figure_is_what_a_gate_finds(report: Report, figure) -> None:  # type: ignore[no-untyped-def]
    plain = json.loads(report_text(report))
    path, subset = figure.path, {}
    for entry, chosen in (("[0.02]", {"scale": 0.02}), ("[1]", {"edits": 1})):
        if entry in path:
            path, subset = path.replace(entry, ""), chosen
    for result, run in zip(report.results, plain["results"], strict=True):
        (found,) = find(run, path, subset)
        value = figure.of(result)
        expected = value if isinstance(value, float | str | None) else vars(value)
        assert found.value == expected


def test_what_two_runs_are_compared_by_has_a_name(real_audit: Audit) -> None:
    (comparison,) = real_audit.comparisons
    compared = [difference.measure for difference in comparison.differences]
    assert set(compared) == {path for path, figure in FIGURES.items() if figure.comparable}


def test_a_measure_that_was_not_run_says_so_in_every_table(report: Report) -> None:
    plain = json.loads(report_text(report))
    plain["results"][0]["membership"] = {"not_run": "there are no members"}
    first, *_ = as_report(plain).results
    assert first.membership == NotRun("there are no members")
    assert FIGURES["membership.auc"].text(first) == "not run"


def test_reading_a_report_loads_nothing_heavy() -> None:
    """``attnpriv gate`` answers at once; torch alone would take seconds."""
    script = (
        "import sys, attnpriv.report, attnpriv.report.sarif, attnpriv.report.markdown\n"
        "print(sorted({'torch', 'numpy', 'matplotlib', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
