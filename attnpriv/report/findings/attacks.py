"""Findings on attacks: one that succeeds proves a leak, one that fails proves nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.audit.results import NotRun
from attnpriv.report.findings.base import Finding, capitalised, invalid, not_run
from attnpriv.report.formats import interval, share

if TYPE_CHECKING:
    from attnpriv.audit.leakage.membership import MembershipResult
    from attnpriv.audit.robustness.embedding import RobustnessResult


def about_membership(test: MembershipResult | NotRun) -> Finding:
    """The loss-threshold test."""
    name = "Membership test"
    if isinstance(test, NotRun):
        action = "Audit with the data that the model was trained on."
        return not_run("membership", name, test.not_run, action)
    if not test.valid:
        return invalid("membership", name, test.positive, test.null)
    kind, _, meaning = test.verdict.partition(": ")
    text = f"{capitalised(meaning)} (AUC {interval(test.auc, 3)}; 0.5 is guessing)."
    if kind == "LEAK FOUND":
        return Finding(
            "bad",
            "Membership can be inferred",
            text,
            "membership",
            "Do not give this model to anyone who may not know who is in the training data.",
        )
    return Finding(
        "info",
        "No membership leak detected",
        text,
        "membership",
        "Nothing by this alone: it was the simplest attack, and stronger ones were not run.",
    )


def about_robustness(attack: RobustnessResult) -> Finding:
    """Accuracy under FGSM and PGD on the embeddings."""
    if not attack.valid:
        return invalid("robustness", "Robustness test", attack.positive, attack.null)
    last = attack.radii[-1]
    return Finding(
        "info",
        "Accuracy under attack on the embeddings",
        f"{share(attack.clean)} without attack, {share(last.strongest)} at the largest radius. "
        "An upper limit, no guarantee.",
        "robustness",
        "Where writers gain by a wrong answer, do not let it decide alone.",
    )
