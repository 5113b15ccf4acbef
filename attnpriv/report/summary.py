"""The audit at a glance: one small table, and one verdict a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attnpriv.audit.results import Audit, NotRun
from attnpriv.report.findings import Finding
from attnpriv.report.findings.base import Level, State
from attnpriv.report.formats import interval, share
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

Row = tuple[str, ...]
NOT_RUN = "not run"
VERDICTS: dict[Level, str] = {
    "bad": "Problems found",
    "warn": "Points to look at",
    "info": "No problem found, which does not prove that there is none",
}
# Of findings, by level or, where they say nothing, by state.
KINDS: dict[Level | State, str] = {
    "bad": "bad",
    "warn": "to look at",
    "invalid": "invalid",
    "info": "to know",
    "good": "good",
    "not run": "not run",
}


@dataclass(frozen=True)
class RunVerdict:
    """How grave the findings of a run are together, and how many there are of each kind."""

    level: Level
    title: str
    counts: str


def headline(audit: Audit) -> tuple[Row, list[Row]]:
    """Column names, one a model, and one row of text a measure; intervals are 95 %."""
    measures = [_measures(result) for result in audit.results]
    rows = [(name, *(each[name] for each in measures)) for name in measures[0]]
    return ("", *(result.name for result in audit.results)), rows


def run_verdict(findings: Sequence[Finding]) -> RunVerdict:
    """The verdict on a run: that of its gravest finding; no run is ever cleared."""
    levels = {finding.level for finding in findings}
    gravest: Level = next((level for level in VERDICTS if level in levels), "info")
    kinds: Counter[Level | State] = Counter(
        finding.level if finding.state == "measured" else finding.state for finding in findings
    )
    counts = ", ".join(f"{kinds[kind]} {name}" for kind, name in KINDS.items() if kinds[kind])
    return RunVerdict(gravest, VERDICTS[gravest], counts)


def _measures(result: AuditResult) -> dict[str, str]:
    certificate = result.attention.certificate
    bound, epsilon = certificate.largest_weight_bound, result.card["epsilon"]
    # The middle one of the three radii.
    attacked = result.robustness.radii[len(result.robustness.radii) // 2]
    membership, memorisation = result.membership, result.memorisation
    swaps = result.counterfactual.overall
    return {
        "ε of the training": "none" if epsilon is None else round_up(epsilon, 2),
        "accuracy": interval(result.utility.accuracy),
        "attention lift on personal data": interval(result.attention.overall.lift),
        "over like words nearby": interval(result.attention.matched.lift),
        "largest attention weight": f"{certificate.largest_weight:.3f}",
        "its certified bound": "none" if bound is None else round_up(bound, 3),
        "lift of integrated gradients": interval(result.attribution.lift.lift),
        "their rank correlation with attention": interval(
            result.faithfulness.rank_correlation.mean
        ),
        "answers turned by swapping personal data": share(swaps.swap.flips),
        "by swapping other words": share(swaps.swap_null.flips),
        "extra log-odds lost on values seen in training": NOT_RUN
        if isinstance(memorisation, NotRun)
        else interval(memorisation.difference),
        "membership AUC": NOT_RUN if isinstance(membership, NotRun) else interval(membership.auc),
        f"accuracy under PGD at {attacked.scale:g} sd": interval(attacked.strongest),
    }
