"""The release policy: what an answer may reveal, and to whom.

A policy names roles. A role lists its principals, and says of each field of each answer what the
model reads for it and how much of it is shown. A field that it does not name is denied.

``rules`` is the format, ``files`` reads it, and ``words`` says in plain words what it means. What
applies it is ``attnpriv_server.release``.
"""

from attnpriv_server.policy.files import load_policies, read_policies
from attnpriv_server.policy.rules import (
    EVERYONE,
    SAFE,
    ExplainRules,
    Policies,
    PredictRules,
    Role,
    SummarizeRules,
)

__all__ = [
    "EVERYONE",
    "SAFE",
    "ExplainRules",
    "Policies",
    "PredictRules",
    "Role",
    "SummarizeRules",
    "load_policies",
    "read_policies",
]
