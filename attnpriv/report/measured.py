"""Runs of which something was measured, and for the others why it was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import Text
from attnpriv.report.findings import capitalised

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult


def measured_of(
    runs: Sequence[AuditResult], part: str
) -> tuple[list[tuple[str, Any]], tuple[Text, ...]]:
    """What was measured of each run, by its name; and a line for each run of which it was not.

    Args:
        runs: in the order of the page.
        part: a field of ``AuditResult``.
    """
    parts = [(run.name, getattr(run, part)) for run in runs]
    return (
        [(name, each) for name, each in parts if not isinstance(each, NotRun)],
        tuple(
            Text(f"{name}: not run. {capitalised(each.not_run)}.")
            for name, each in parts
            if isinstance(each, NotRun)
        ),
    )
