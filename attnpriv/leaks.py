"""What attacks on a server's answers found, in the form that passes from one audit to the other.

``attnpriv-client audit`` writes it, and the report of ``attnpriv audit`` puts it beside what the
run folder gives away. Plain Python, without numpy and torch, since the client has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from attnpriv.estimates import Estimate
from attnpriv.verdicts import Verdict

FORMAT = "attnpriv-client audit"
FORMAT_VERSION = 1

Attack = Literal[
    "membership",
    "lira",
    "lira_offline",
    "rmia",
    "rmia_offline",
    "attention",
    "attributions",
    "together",
    "exposure",
    "hidden_words",
    "attributes",
]
ATTACKS: tuple[Attack, ...] = get_args(Attack)


@dataclass(frozen=True)
class Leak:
    """What one attack on answers found.

    Attributes:
        attack: its name.
        figure: what its value is; empty where it was not run.
        records: how many were attacked.
        value: the figure with its 95 % interval; None where it was not run.
        chance: what guessing gives.
        verdict: on all figures of the attack; INCONCLUSIVE where a control failed.
        not_run: why there is no figure, if there is none.
    """

    attack: Attack
    figure: str = ""
    records: int = 0
    value: Estimate | None = None
    chance: float | None = None
    verdict: Verdict | None = None
    not_run: str | None = None
