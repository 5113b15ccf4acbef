"""The audit in one Markdown page, for a pull request."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from attnpriv.audit.results import NotRun
from attnpriv.report.comparing import words_of
from attnpriv.report.formats import interval
from attnpriv.report.gates import Outcome
from attnpriv.report.noised.document import AnyReport, NoisedReport
from attnpriv.report.printable import printable
from attnpriv.report.summary import headline

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison

SYMBOLS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "⚠️"}
EXACT = "The figures are exact functions of the audited rows; no ε covers them."
NOT_COVERED = (
    "An attack that fails proves nothing: ε alone is a guarantee, and only for the training data.",
    "Several gates are not corrected for each other; a hardened model is not differentially "
    "private by that.",
)

BREAK = "\N{ZERO WIDTH SPACE}"  # after @ and #: code hosts read them after the Markdown


def markdown(report: AnyReport, outcomes: Sequence[Outcome]) -> str:
    """Verdict, gates, main numbers with 95 % intervals, and what is not covered.

    Args:
        report: the audit with its findings.
        outcomes: of the gates; none where none were checked.
    """
    sections = [
        f"## attnpriv audit: {_verdict(outcomes)}",
        _gates(outcomes) if outcomes else "",
        _numbers(report),
        *map(_differences, report.comparisons),
        _bullets("What to look at", _warnings(report)),
        _bullets("Not covered", (*_not_run(report), _price(report), *NOT_COVERED)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _price(report: AnyReport) -> str:
    """What of the audited records the figures may tell."""
    if not isinstance(report, NoisedReport):
        return EXACT
    noise = report.noise
    return (
        f"The figures are noised under ε = {noise.epsilon:g} at δ = {noise.delta:.2g} (relation: "
        f"{noise.relation}). Other reports on the same records are not covered: their ε add up."
    )


def _verdict(outcomes: Sequence[Outcome]) -> str:
    if not outcomes:
        return "no gates were checked"
    if not any(outcome.blocks for outcome in outcomes):
        doubts = sum(outcome.verdict == "INCONCLUSIVE" for outcome in outcomes)
        return f"passed, {doubts} inconclusive and allowed" if doubts else "passed"
    return "FAILED" if any(o.verdict == "FAIL" for o in outcomes) else "INCONCLUSIVE"


def _gates(outcomes: Sequence[Outcome]) -> str:
    rows = (
        (f"{SYMBOLS[o.verdict]} {o.verdict}", escape(o.gate.name), escape(o.run), escape(o.reason))
        for o in outcomes
    )
    return _table(("", "gate", "run", "why"), rows)


def _numbers(report: AnyReport) -> str:
    header, rows = headline(report)
    return _table(tuple(map(escape, header)), ((escape(name), *cells) for name, *cells in rows))


def _differences(comparison: Comparison) -> str:
    title = f"{escape(comparison.run)} less {escape(comparison.against)}"
    if comparison.not_run:
        return f"{title}: {escape(comparison.not_run)}."
    rows = (
        (escape(words_of(each.measure)), interval(each.difference, 3), str(each.documents))
        for each in comparison.differences
    )
    return _table((title, "difference", "documents"), rows)


def _warnings(report: AnyReport) -> Iterator[str]:
    for run in report.findings:
        for finding in run.findings:
            if finding.level in ("bad", "warn"):
                yield f"**{escape(run.run)}**: {escape(finding.title)}"


def _not_run(report: AnyReport) -> Iterator[str]:
    for result in report.results:
        for measure, value in vars(result).items():
            if isinstance(value, NotRun):
                reason = escape(value.not_run)
                yield f"{escape(result.name)}: {measure} was not run, since {reason}"
    if unseen := report.coverage.cannot_see:
        yield f"The detector of personal data does not find {escape(', '.join(unseen))}."


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bullets(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return "\n".join([f"**{title}**", "", *lines]) if lines else ""


def escape(text: str) -> str:
    r"""The text as text: no markup, no HTML, no link, nobody mentioned.

    >>> escape("a|b <img> www.c.org")
    'a\\|b &lt;img&gt; www\\.c.org'
    """
    text = re.sub(r"([\\`*_{}\[\]|#~!$]|:(?=\S)|(?<=www)\.)", r"\\\1", printable(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub("(?<=[@#])", BREAK, text)
