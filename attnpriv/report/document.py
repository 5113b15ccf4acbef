"""``audit.json``: the audit, what it means and where it came from, for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from attnpriv.audit.results import SCHEMA_VERSION, Audit, to_json
from attnpriv.report.chapters import findings
from attnpriv.report.findings import Finding
from attnpriv.report.provenance import Provenance

PUBLISHED = Path(__file__).parent / "schema" / f"report-{SCHEMA_VERSION}.json"


@dataclass(frozen=True)
class RunFindings:
    """What the audit of one run means, in sentences."""

    run: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, kw_only=True)
class Report(Audit):
    """An audit of one or several runs, with its findings and its provenance."""

    findings: tuple[RunFindings, ...]
    provenance: Provenance | None


def make_report(audit: Audit, provenance: Provenance | None) -> Report:
    """The audit, what it means and where it came from; every format is made of this."""
    meanings = tuple(RunFindings(result.name, findings(result)) for result in audit.results)
    return Report(**vars(audit), findings=meanings, provenance=provenance)


def report_text(report: Report, include_text: bool = False) -> str:
    """``audit.json`` itself: of equal arguments, equal text."""
    plain = to_json(report, include_text)
    return f"{json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n"
