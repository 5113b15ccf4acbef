"""What an audit returns, and how it becomes plain JSON.

Each measure's own result stands in its module; ``attnpriv.audit.measures`` lists them. Numbers
computed from private rows are not covered by any ε: whoever gets the report learns them exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attnpriv.estimates import to_plain

if TYPE_CHECKING:  # the measures import torch, which reading a report does not need
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.coverage import DetectorCoverage
    from attnpriv.audit.measures import AuditResult

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class NotRun:
    """Stands where a measure's result would, and says why the measure was not run."""

    not_run: str


@dataclass(frozen=True)
class Audit:
    """One or several runs audited on the same data."""

    results: tuple[AuditResult, ...]
    comparisons: tuple[Comparison, ...]
    coverage: DetectorCoverage
    options: dict[str, Any]
    schema_version: int = SCHEMA_VERSION


def _shown(examples: list[dict[str, Any]] | dict[str, str]) -> list[dict[str, Any]]:
    """The examples; there are none where they were not run."""
    return examples if isinstance(examples, list) else []


def to_json(audit: Audit, include_text: bool = False) -> dict[str, Any]:
    """The audit as plain JSON values: no NaN or infinity, and no words unless asked for."""
    plain: dict[str, Any] = to_plain(dataclasses.asdict(audit))
    if not include_text:
        for result in plain["results"]:
            for example in _shown(result["examples"]):
                for piece in example["pieces"]:
                    del piece["word"], piece["joined"]  # joined tokens would tell long words
    return plain
