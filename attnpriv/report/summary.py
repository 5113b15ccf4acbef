"""The audit at a glance: one small table, and one verdict a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from attnpriv.audit.results import Audit
from attnpriv.report.chapters import MAIN
from attnpriv.report.findings import Finding, Level, State
from attnpriv.report.noised.document import AnyReport

Row = tuple[str, ...]
VERDICTS: dict[Level, str] = {
    "bad": "Problems found",
    "warn": "Points to look at",
    "info": "No problem found, which does not prove that there is none",
}
# Of findings, by level or, where they say nothing, by state.
KINDS: dict[Level | State, str] = {
    "bad": "bad",
    "warn": "to look at",
    "invalid": "invalid",
    "info": "to know",
    "good": "good",
    "not run": "not run",
}


@dataclass(frozen=True)
class RunVerdict:
    """How grave the findings of a run are together, and how many there are of each kind."""

    level: Level
    title: str
    counts: str


def headline(audit: Audit | AnyReport) -> tuple[Row, list[Row]]:
    """Column names, one a model, and one row of text a main figure; intervals are 95 %."""
    results: Sequence[Any] = audit.results
    rows = [(figure.words, *map(figure.text, results)) for figure in MAIN]
    return ("", *(result.name for result in results)), rows


def run_verdict(findings: Sequence[Finding]) -> RunVerdict:
    """The verdict on a run: that of its gravest finding; no run is ever cleared."""
    levels = {finding.level for finding in findings}
    gravest: Level = next((level for level in VERDICTS if level in levels), "info")
    kinds: Counter[Level | State] = Counter(
        finding.level if finding.state == "measured" else finding.state for finding in findings
    )
    counts = ", ".join(f"{kinds[kind]} {name}" for kind, name in KINDS.items() if kinds[kind])
    return RunVerdict(gravest, VERDICTS[gravest], counts)
