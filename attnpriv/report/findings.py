"""One plain sentence for each thing that was tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from attnpriv.audit.results import AuditResult, Lift
from attnpriv.rounding import round_up

Level = Literal["good", "info", "warn", "bad"]


@dataclass(frozen=True)
class Finding:
    """A finding for a reader without statistics; ``level`` sets its colour."""

    level: Level
    title: str
    text: str


def findings(result: AuditResult) -> tuple[Finding, ...]:
    """What the audit of one run means, in the order of the report."""
    return (
        _privacy(result),
        _certificate(result),
        _attention(result.attention.overall, result.attention.planted.passed),
        _membership(result),
        _robustness(result),
    )


def _privacy(result: AuditResult) -> Finding:
    card = result.card
    if not card.get("private"):
        return Finding(
            "bad",
            "Not trained privately",
            "Nothing bounds what this model gives away about its training records.",
        )
    guarantee = f"ε = {round_up(card['epsilon'], 2)} at δ = {card['delta']:g}"
    if card.get("warnings"):
        return Finding("warn", f"Trained privately, with warnings: {guarantee}", "See its card.")
    return Finding(
        "good",
        f"Trained privately: {guarantee}",
        "The influence of any one training record on this model is bounded.",
    )


def _certificate(result: AuditResult) -> Finding:
    certificate = result.attention.certificate
    bound = certificate.largest_weight_bound
    if bound is None:
        return Finding(
            "warn",
            "Attention has no bound",
            "The logits are not clipped: one token can take all the attention "
            f"(measured: {certificate.largest_weight:.3f}).",
        )
    measured = (
        f"Largest weight measured {certificate.largest_weight:.3f}, "
        f"proved limit {round_up(bound, 3)}."
    )
    if certificate.holds:
        return Finding("good", "Attention stays within its proved bound", measured)
    return Finding("bad", "ATTENTION EXCEEDS ITS PROVED BOUND", f"This is a defect. {measured}")


def _attention(lift: Lift, planted: bool) -> Finding:
    if lift.lift.value is None or lift.p_value is None:
        return Finding("info", "Attention to personal data not measured", "None was found.")
    figure = f"Personal data gets {lift.lift.value:.2f} times the attention of an average word"
    if lift.p_value >= 0.05:
        power = "" if planted else " These documents are too few to find even a doubled attention."
        return Finding(
            "info" if planted else "warn",
            "No difference in attention to personal data was found",
            f"{figure}, which shuffled labels give as well.{power}",
        )
    if lift.lift.value > 1:
        return Finding(
            "warn",
            "Attention favours personal data",
            f"{figure}, more than shuffled labels explain.",
        )
    return Finding("good", "Attention does not favour personal data", f"{figure}.")


def _membership(result: AuditResult) -> Finding:
    test = result.membership
    if test is None:
        return Finding("info", "Membership test not run", f"{result.membership_not_run}.")
    kind, _, meaning = test.verdict.partition(": ")
    levels: dict[str, Level] = {"INVALID": "warn", "LEAK FOUND": "bad"}
    titles = {
        "INVALID": "Membership test INVALID",
        "LEAK FOUND": "Membership can be inferred",
    }
    return Finding(
        levels.get(kind, "info"),
        titles.get(kind, "No membership leak detected"),
        f"{meaning[0].upper()}{meaning[1:]} (AUC {test.auc.value:.3f}).",
    )


def _robustness(result: AuditResult) -> Finding:
    attack = result.robustness
    if not attack.valid:
        return Finding("warn", "Robustness test INVALID", "A control failed; see below.")
    clean, last = attack.clean.value or 0.0, attack.radii[-1]
    return Finding(
        "info",
        "Accuracy under attack on the embeddings",
        f"{clean:.1%} without attack, {last.strongest.value or 0.0:.1%} at the largest radius. "
        "An upper limit, no guarantee.",
    )
