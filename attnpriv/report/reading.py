"""``audit.json`` as the report that it was written from.

The results' own types stand beside the measures, which import torch; reading a report must not take
seconds. So each object of the file becomes a ``Part`` with the same names as attributes, and
whatever reads a fresh report reads an old one alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import best_match

from attnpriv.audit.results import SCHEMA_VERSION, NotRun
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate
from attnpriv.report.document import PUBLISHED, Report, RunFindings
from attnpriv.report.findings import Finding
from attnpriv.report.noised import document as noised
from attnpriv.report.noised.document import VERSION, AnyReport, NoisedReport

SCHEMAS = {SCHEMA_VERSION: PUBLISHED, VERSION: noised.PUBLISHED}
DIGITS = 18  # of a whole number that fits in 64 bits
MAPPINGS = (
    "card",
    "options",
    "libraries",
    "sha256",
    "left_out",
    "shares",
)  # whose names are no attributes
KNOWN: dict[frozenset[str], type] = {
    frozenset(("value", "low", "high")): Estimate,
    frozenset(("expected", "measured", "passed")): Control,
    frozenset(("not_run",)): NotRun,
    frozenset(("level", "title", "text", "measure", "action", "state")): Finding,
    frozenset(("run", "findings")): RunFindings,
}


class Part(SimpleNamespace):
    """An object of ``audit.json``."""


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
    if version not in (*SCHEMAS,):
        expected = f"a report with schema_version {' or '.join(map(str, SCHEMAS))}"
        raise InputError(f"{path}: expected {expected}, got {version!r}")
    schema = json.loads(SCHEMAS[version].read_bytes())
    wrong = best_match(Draft202012Validator(schema).iter_errors(report))
    if wrong is not None:
        raise InputError(f"{path} is not valid by its schema: {_words(wrong)}")
    return dict(report)


def as_report(plain: dict[str, Any]) -> AnyReport:
    """A report from what ``read_report`` returned."""
    of: type[AnyReport] = NoisedReport if plain["schema_version"] == VERSION else Report
    return of(**{name: _part(name, value) for name, value in plain.items()})


def _part(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_part("", item) for item in value)
    if not isinstance(value, dict) or name in MAPPINGS:
        return value
    of = KNOWN.get(frozenset(value), Part)
    return of(**{name: _part(name, item) for name, item in value.items()})


def _whole_number(digits: str) -> int:
    return int(digits) if len(digits) <= DIGITS else _refuse(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _words(error: ValidationError) -> str:
    """Where and what; without the value itself, which may be all of the report."""
    named = error.validator in ("required", "additionalProperties")
    expected = error.message if named else f"expected {error.validator} {error.validator_value}"
    return f"at {error.json_path}: {expected}"
