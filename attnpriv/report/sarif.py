"""Gates and findings as SARIF 2.1.0, which code hosts show beside a change.

Written with the standard library: sarif-om, the object model on PyPI, is of 2019.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from attnpriv import __version__
from attnpriv.report.chapters import QUESTIONS
from attnpriv.report.findings import Finding
from attnpriv.report.gates import Outcome
from attnpriv.report.noised.document import AnyReport
from attnpriv.report.printable import printable

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
LEVELS = {"bad": "error", "warn": "warning", "info": "note"}  # what is good is no result

Json = dict[str, Any]


def sarif(
    report: AnyReport,
    outcomes: Sequence[Outcome],
    report_file: PurePath,
    gates_file: PurePath | None,
) -> str:
    """One result a gate that did not pass, and one a finding that is not good news.

    Args:
        report: the audit with its findings.
        outcomes: of the gates; none where none were checked.
        report_file: where findings point at.
        gates_file: where gates point at, at the line where each begins.

    Paths from the root of the file system are cut down to the file's name: they would say where
    somebody works, and no code host could follow them.
    """
    results = [_gate(o, gates_file or report_file) for o in outcomes if o.verdict != "PASS"]
    results += [
        _finding(printable(run.run), finding, report_file)
        for run in report.findings
        for finding in run.findings
        if finding.level in LEVELS
    ]
    rules = [
        _rule(f"gate/{o.gate.name}", f"{o.gate.measure} must be {o.gate.limit}") for o in outcomes
    ]
    rules += [_rule(f"finding/{name}", each.question) for name, each in QUESTIONS.items()]
    driver = {"name": "attnpriv", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False) + "\n"


def _gate(outcome: Outcome, file: PurePath) -> Json:
    gate = outcome.gate
    level = "error" if outcome.verdict == "FAIL" else "warning"
    text = f"{outcome.run}: {outcome.verdict}: {outcome.reason}."
    return _result(f"gate/{gate.name}", level, text, outcome.run, file, gate.line)


def _finding(run: str, finding: Finding, file: PurePath) -> Json:
    text = f"{run}: {finding.title}. {finding.text} {finding.action}"
    return _result(f"finding/{finding.measure}", LEVELS[finding.level], text, run, file, 1)


def _result(rule: str, level: str, text: str, identity: str, file: PurePath, line: int) -> Json:
    """A result; its fingerprint stays the same from audit to audit, whatever was measured."""
    uri = quote(os.fsencode(file.name if file.is_absolute() else file.as_posix()))
    text = printable(text).replace("](", "] (")  # no link, whatever a name holds
    place = {"artifactLocation": {"uri": uri}, "region": {"startLine": line}}
    fingerprint = hashlib.sha256(f"{rule} {identity}".encode()).hexdigest()
    return {
        "ruleId": rule,
        "level": level,
        "message": {"text": text},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {"attnpriv/v1": fingerprint},
    }


def _rule(name: str, text: str) -> Json:
    return {"id": name, "shortDescription": {"text": text}}
