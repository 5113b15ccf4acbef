"""What the report says of each measure: one module each, found by being here.

A module of this package holds a ``CHAPTER``; nothing lists them besides, so that a measure that
comes or goes changes no other file of the report. A test holds them against the table of measures.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import Finding

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult


def _find() -> tuple[Chapter, ...]:
    names = [module.name for module in iter_modules(__path__)]
    found: list[Chapter] = [import_module(f"{__name__}.{name}").CHAPTER for name in names]
    return tuple(sorted(found, key=lambda chapter: chapter.place))


CHAPTERS = _find()
QUESTIONS: dict[str, Question] = {each.name: each.asks for each in CHAPTERS if each.asks}
FIGURES: dict[str, Figure] = {
    figure.path: figure for chapter in CHAPTERS for figure in chapter.figures
}
MAIN = tuple(figure for figure in FIGURES.values() if figure.main)


def findings(result: AuditResult) -> tuple[Finding, ...]:
    """What the audit of one run means, one finding a question, in their order.

    Claim: a finding is "good" only where a proof or a card bounds something, or where a bias was
    looked for and points the other way. An attack that fails, or an effect that is not found, is
    at best "info".
    """
    return tuple(question.finding(result) for question in QUESTIONS.values())
