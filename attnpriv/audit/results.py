"""What an audit returns, and how it becomes plain JSON.

Each measure's own result stands in its module; ``attnpriv.audit.measures`` lists them. Numbers
computed from private rows are not covered by any ε: whoever gets the report learns them exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from attnpriv.estimates import to_plain

if TYPE_CHECKING:  # the measures import torch, which reading a report does not need
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.coverage import DetectorCoverage
    from attnpriv.audit.examples import Example, Piece
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


def blurred(example: Example) -> Example:
    """An example in which all patches that hide the same types have the mean of their scores.

    What lies inside a sensitive region would otherwise show: attention can trace a face. A span of
    a text is one piece already.
    """
    of_type: dict[str, list[Piece]] = {}
    for piece in example.pieces:
        if piece.box is not None and piece.placeholder is not None:
            of_type.setdefault(piece.placeholder, []).append(piece)

    def seen(piece: Piece) -> Piece:
        if piece.box is None or piece.placeholder is None:
            return piece
        alike = of_type[piece.placeholder]
        means: dict[str, Any] = {
            name: fmean(getattr(each, name) for each in alike)
            for name in ("attention", "attribution", "gates", "gradcam", "hirescam")
            if getattr(piece, name) is not None
        }
        return dataclasses.replace(piece, **means)

    return dataclasses.replace(example, pieces=tuple(map(seen, example.pieces)))


def _without_insides(result: AuditResult) -> AuditResult:
    return dataclasses.replace(result, examples=tuple(map(blurred, result.examples)))


def to_json(audit: Audit, include_text: bool = False) -> dict[str, Any]:
    """The audit as plain JSON values: no NaN or infinity.

    Unless text was asked for, there are no words, and patches of sensitive regions are ``blurred``.
    """
    if not include_text:
        audit = dataclasses.replace(audit, results=tuple(map(_without_insides, audit.results)))
    plain: dict[str, Any] = to_plain(dataclasses.asdict(audit))
    if not include_text:
        for result in plain["results"]:
            for example in result["examples"]:
                for piece in example["pieces"]:
                    del piece["word"], piece["joined"]  # joined tokens would tell long words
    return plain
