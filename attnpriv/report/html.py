"""An audit as one HTML page: no script, no request, nothing outside the file.

It is read from the top by people, who get the verdict, what was tested, what it means and what that
does not cover; and from the bottom by specialists, who get every figure and where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnpriv import __version__
from attnpriv.report import formats
from attnpriv.report.blocks import UNCOVERED
from attnpriv.report.chapters import CHAPTERS, QUESTIONS
from attnpriv.report.comparing import differences
from attnpriv.report.document import Report
from attnpriv.report.findings import Finding
from attnpriv.report.gates import Outcome
from attnpriv.report.summary import headline, run_verdict

# Sections with a template of the same name; the chapters stand between them. What comes before the
# chapters is for everyone.
BEFORE = {
    "verdict": "Verdict",
    "tested": "What was tested",
    "meaning": "What it means, and what to do",
    "limits": "What this report does not cover",
}
COMPARISON = "comparison"
AFTER = {
    "coverage": "Who says what is personal data",
    "method": "Method and provenance",
    "signature": "Signature",
}


def render_html(report: Report, include_text: bool, outcomes: Sequence[Outcome] = ()) -> str:
    """The page.

    Args:
        report: what was measured, and what it means.
        include_text: also show the words of the examples that are not marked as personal data.
        outcomes: of the gates, where some were checked.
    """
    pages = environment()
    results = report.results
    names = [result.name for result in results]
    said = [run.findings for run in report.findings]
    answers = dict(zip(QUESTIONS, zip(*said, strict=True), strict=True))
    bodies = {each.name: each.body(results, include_text) for each in CHAPTERS}
    titles = BEFORE | {each.name: each.title for each in CHAPTERS}
    if report.comparisons:
        titles[COMPARISON] = "One model compared with another"
        bodies[COMPARISON] = differences(report)
    return pages.get_template("page.html").render(
        audit=report,
        runs=results,
        sections=titles | AFTER,
        bodies=bodies,
        style=Markup(pages.get_template("report.css").render()),
        version=__version__,
        outcomes=outcomes,
        provenance=report.provenance,
        questions=QUESTIONS,
        answers=answers,
        meanings={key: merged(each, names) for key, each in answers.items()},
        incomplete=any(finding.state != "measured" for each in said for finding in each),
        verdicts=[run_verdict(each) for each in said],
        headline=headline(report),
    )


def merged(answers: Sequence[Finding], runs: Sequence[str]) -> dict[Finding, list[str]]:
    """Each finding with the runs that it is true of: what holds for several is said once."""
    found: dict[Finding, list[str]] = {}
    for finding, run in zip(answers, runs, strict=True):
        found.setdefault(finding, []).append(run)
    return found


@cache
def environment() -> Environment:
    """The templates of the pages."""
    templates = Environment(
        loader=PackageLoader("attnpriv.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    templates.globals["uncovered"] = UNCOVERED
    templates.filters.update(number=formats.number, percent=formats.percent)
    return templates
