"""The audit as files: JSON for programs, one self-contained page for people."""

from attnpriv.report.summary import headline
from attnpriv.report.writer import write_report

__all__ = ["headline", "write_report"]
