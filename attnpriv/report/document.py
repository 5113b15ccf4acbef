"""``audit.json``: the audit, what it means and where it came from, for programs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match

from attnpriv.audit.results import SCHEMA_VERSION, Audit, to_json
from attnpriv.errors import InputError
from attnpriv.report.findings import Finding, findings
from attnpriv.report.provenance import Provenance

PUBLISHED = Path(__file__).parent / "schema" / f"report-{SCHEMA_VERSION}.json"
DIGITS = 18  # of a whole number that fits in 64 bits


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
    """All that ``audit.json`` holds."""
    meanings = tuple(RunFindings(result.name, findings(result)) for result in audit.results)
    return Report(**vars(audit), findings=meanings, provenance=provenance)


def report_text(audit: Audit, provenance: Provenance | None, include_text: bool = False) -> str:
    """``audit.json`` itself: of equal arguments, equal text."""
    report = to_json(make_report(audit, provenance), include_text)
    return f"{json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n"


def read_report(path: str | Path) -> dict[str, Any]:
    """What ``audit.json`` holds, as plain JSON values.

    Claim: it is valid by the published schema. Not covered: that it is what an audit wrote.

    Raises:
        InputError: the file cannot be read, is no report of this version of the schema, or not
            valid by it.
    """
    try:
        report = json.loads(
            Path(path).read_bytes(), parse_constant=_refuse, parse_int=_whole_number
        )
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        raise InputError(f"{path} is not a JSON file") from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        expected = f"a report with schema_version {SCHEMA_VERSION}"
        raise InputError(f"{path}: expected {expected}, got {version!r}")
    schema = json.loads(PUBLISHED.read_bytes())
    wrong = best_match(Draft202012Validator(schema).iter_errors(report))
    if wrong is not None:
        raise InputError(f"{path} is not valid by its schema: {_words(wrong)}")
    return dict(report)


def _whole_number(digits: str) -> int:
    return int(digits) if len(digits) <= DIGITS else _refuse(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _words(error: ValidationError) -> str:
    """Where and what; without the value itself, which may be all of the report."""
    named = error.validator in ("required", "additionalProperties")
    expected = error.message if named else f"expected {error.validator} {error.validator_value}"
    return f"at {error.json_path}: {expected}"
