"""The audit as files: JSON for programs, one page for people, and what CI systems read."""

from attnpriv.report.gates import check_gates, exit_code, read_gates
from attnpriv.report.provenance import provenance
from attnpriv.report.reading import as_report, read_report
from attnpriv.report.summary import headline
from attnpriv.report.writer import write_checks, write_report

__all__ = [
    "as_report",
    "check_gates",
    "exit_code",
    "headline",
    "provenance",
    "read_gates",
    "read_report",
    "write_checks",
    "write_report",
]
