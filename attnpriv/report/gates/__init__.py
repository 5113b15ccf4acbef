"""Gates: limits that a report must keep, and what its intervals say about them."""

from attnpriv.report.gates.config import Gate, read_gates
from attnpriv.report.gates.verdicts import Outcome, Verdict, check_gates, exit_code

__all__ = ["Gate", "Outcome", "Verdict", "check_gates", "exit_code", "read_gates"]
