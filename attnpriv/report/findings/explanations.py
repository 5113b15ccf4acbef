"""Findings on what the answers rest on, and on how far explanations can be trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.report.findings.attention import NO_PERSONAL_DATA, OTHER_RECORDS
from attnpriv.report.findings.base import (
    Finding,
    above_chance,
    invalid,
    is_significant,
    not_run,
    stands_out,
)
from attnpriv.report.formats import interval, share

if TYPE_CHECKING:
    from attnpriv.audit.attribution import AttributionResult
    from attnpriv.audit.conductance import ConductanceResult
    from attnpriv.audit.faithfulness import FaithfulnessResult, RankingFaithfulness
    from attnpriv.audit.infidelity import SensitivityResult
    from attnpriv.audit.occlusion import OcclusionResult


def about_attribution(attribution: AttributionResult) -> Finding:
    """Integrated gradients on personal data."""
    lift = attribution.lift
    if lift.lift.value is None or attribution.share is None:
        name = "Attribution to personal data"
        return not_run("attribution", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    figure = (
        f"Personal data carries {attribution.share:.1%} of what moved the answers, "
        f"{interval(lift.lift)} times an average word's part"
    )
    if above_chance(lift):
        return Finding(
            "warn",
            "Answers lean on personal data",
            f"{figure}, more than shuffled labels explain.",
            "attribution",
            "Read the swap test; if the purpose does not need personal data, mask it in training.",
        )
    if is_significant(lift.p_value):
        title, why = "Answers lean less on personal data than on other words", "."
    else:
        title, why = "No leaning on personal data was found", ", as shuffled labels give too."
    return Finding(
        "info",
        title,
        f"{figure}{why}",
        "attribution",
        "Nothing by this alone: less than others is not nothing.",
    )


def about_conductance(conductance: ConductanceResult) -> Finding:
    """The layer that passes most of its conductance through personal data."""
    measured = [
        (share, layer) for layer, share in enumerate(conductance.shares, 1) if share is not None
    ]
    if not measured:
        return not_run("conductance", "Conductance", NO_PERSONAL_DATA, OTHER_RECORDS)
    most, layer = max(measured)
    found = [each.name for each in conductance.layers if stands_out(each.permuted)]
    figure = f"Most of it in layer {layer}: {most:.1%} of what passes through its attention weights"
    if found:
        return Finding(
            "warn",
            f"Personal data reaches the answer through {', '.join(found)}",
            f"{figure}; more than chance explains.",
            "conductance",
            "Read the swap test; these layers are the ones to harden or to train again.",
        )
    return Finding(
        "info",
        "No layer passes more of personal data on than of other words",
        f"{figure}.",
        "conductance",
        "Nothing by this alone: it follows attention, not every path to the answer.",
    )


def about_occlusion(occlusion: OcclusionResult) -> Finding:
    """Whether leaving words out ranks them as integrated gradients does."""
    correlation = occlusion.rank_correlation
    if correlation.value is None:
        reason = "no record had words that differ in their effect"
        return not_run("occlusion", "The second opinion", reason, "Audit longer records.")
    figure = (
        f"Leaving words out one by one ranks them like integrated gradients with a correlation of "
        f"{interval(correlation)}, in {occlusion.rank_documents} records"
    )
    if correlation.value > 0 and is_significant(occlusion.rank_p_value):
        return Finding(
            "info",
            "Two methods agree beyond chance on what matters",
            f"{figure}; 1 would be the same order.",
            "occlusion",
            "The weaker the agreement, the less to build on single words of an explanation.",
        )
    return Finding(
        "warn",
        "Two methods do not agree on what matters",
        f"{figure}, no more than chance gives.",
        "occlusion",
        "Do not rely on either for single words; rely on the swap test.",
    )


def about_faithfulness(faithfulness: FaithfulnessResult) -> Finding:
    """Whether removing what attention ranks first moves the answer more than removing any words."""
    name = "Faithfulness of attention"
    if not faithfulness.valid:
        return invalid("faithfulness", name, faithfulness.positive, faithfulness.null)
    by_name = {each.ranking: each for each in faithfulness.rankings}
    attention, gradients = by_name["attention"], by_name["integrated_gradients"]
    rank = faithfulness.rank_correlation
    text = (
        f"Without the words that attention ranks first the answer's probability falls by "
        f"{_gain(attention)} more than without random ones; by integrated gradients' ranking, by "
        f"{_gain(gradients)}. The two rank words with a correlation of {interval(rank.mean)}."
    )
    if (attention.comprehensiveness_gain.low or 0.0) > 0:
        return Finding(
            "info",
            "Attention names words that matter, more than chance does",
            text,
            "faithfulness",
            "Still show attention as attention, never as the reason for an answer.",
        )
    return Finding(
        "warn",
        "Attention names words that matter no better than chance",
        text,
        "faithfulness",
        "Do not show attention of this model as an explanation.",
    )


def _gain(ranking: RankingFaithfulness) -> str:
    return interval(ranking.comprehensiveness_gain, 3)


def about_sensitivity(sensitivity: SensitivityResult) -> Finding:
    """How far explanations move under tiny noise; a lower bound on the worst."""
    if not sensitivity.valid:
        controls = sensitivity.positive, sensitivity.null
        return invalid("sensitivity", "Stability of explanations", *controls)
    moves = {
        each.explanation: each.largest
        for each in sensitivity.explanations
        if each.explanation in ("attention", "integrated_gradients")
    }
    text = (
        f"Under noise of {sensitivity.radius:g} deviations, "
        + " and ".join(
            f"{name.replace('_', ' ')} moves by {share(move)} of its size at least"
            for name, move in moves.items()
        )
        + "."
    )
    if any((move.value or 0.0) >= 1 for move in moves.values()):
        return Finding(
            "warn",
            "An explanation moves by more than its own size",
            text,
            "sensitivity",
            "Do not show single explanations; average over many records.",
        )
    return Finding(
        "info",
        "Explanations move by less than their own size",
        text,
        "sensitivity",
        "Read differences between words that are smaller than this as none.",
    )
