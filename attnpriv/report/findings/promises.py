"""Findings on what is promised: privacy of the training, the certificate, and useful answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.report.findings.base import Finding
from attnpriv.report.formats import share
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.attention import Certificate
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.utility import UtilityResult

# Beyond it a bound on ε says little: the third tier of Ponomareva et al. 2023, arXiv:2303.00654.
WEAK_EPSILON = 10.0


def about_privacy(result: AuditResult) -> Finding:
    """What the model card promises; the audit does not check it, it can only refute it."""
    card = result.card
    if not card.get("private"):
        return Finding(
            "bad",
            "Not trained privately",
            "Nothing bounds what this model gives away about its training records.",
            "privacy",
            "Guard the model as closely as its training records, or train it again with an ε.",
        )
    guarantee = f"ε = {round_up(card['epsilon'], 2)} at δ = {card['delta']:g}"
    if card.get("warnings"):
        return Finding(
            "warn",
            f"Trained privately, with warnings: {guarantee}",
            "The model card restricts its own statement.",
            "privacy",
            "Read the warnings on the privacy card before relying on this ε.",
        )
    if card["epsilon"] > WEAK_EPSILON:
        return Finding(
            "warn",
            f"Trained privately, but the bound is weak: {guarantee}",
            f"Above ε = {WEAK_EPSILON:g} the bound on any one record's influence excludes little.",
            "privacy",
            "Do not rely on this ε alone; train again with a smaller one.",
        )
    return Finding(
        "good",
        f"Trained privately: {guarantee}",
        "The influence of any one training record on this model is bounded.",
        "privacy",
        "Keep the card with the model, and add up the ε of everything released on these records.",
    )


def about_utility(utility: UtilityResult) -> Finding:
    """Whether the model beats naming the most frequent class: if not, all else says little."""
    most = max((each.support for each in utility.classes), default=0) / max(utility.n, 1)
    figure = f"{share(utility.accuracy)} of the answers are right"
    usual = f"always naming the most frequent class would get {most:.1%} right"
    if (utility.accuracy.low or 0.0) <= most:
        return Finding(
            "warn",
            "No better than naming the most frequent class",
            f"{figure}; {usual}.",
            "utility",
            "Do not use this model. What follows says little of one that has learned more.",
        )
    return Finding(
        "info",
        "Better than naming the most frequent class",
        f"{figure}; {usual}.",
        "utility",
        "Decide whether that is enough for the purpose, class by class.",
    )


def about_certificate(certificate: Certificate) -> Finding:
    """The proved bound on attention, if there is one."""
    bound = certificate.largest_weight_bound
    if bound is None:
        return Finding(
            "warn",
            "Attention has no bound",
            "The logits are not clipped: one token can take all the attention "
            f"(measured: {certificate.largest_weight:.3f}).",
            "certificate",
            "Train with a clip where no single word may dominate an answer.",
        )
    measured = (
        f"Largest weight measured {certificate.largest_weight:.3f}, "
        f"proved limit {round_up(bound, 3)}"
    )
    if not certificate.holds:
        return Finding(
            "bad",
            "ATTENTION EXCEEDS ITS PROVED BOUND",
            f"This is a defect. {measured}.",
            "certificate",
            "Do not release this model; report the defect.",
        )
    return Finding(
        "good",
        "Attention stays within its proved bound",
        f"{measured}. That limits how much one word weighs; it is not differential privacy.",
        "certificate",
        "Keep the clip and the temperature whenever the model is trained on.",
    )
