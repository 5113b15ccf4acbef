"""The audit of a server from outside: what its answers allow to be measured, and what they do not.

Everything is asked through the same calls, roles and release policy as any other caller's. The
measures carry the names and formulas of ``attnpriv.audit``, which has the run folder; where an
answer holds less than that, each module says how its figure differs.
"""

from attnpriv_client.audit.results import Audit
from attnpriv_client.audit.rows import Row, read_rows
from attnpriv_client.audit.runner import run_audit

__all__ = ["Audit", "Row", "read_rows", "run_audit"]
