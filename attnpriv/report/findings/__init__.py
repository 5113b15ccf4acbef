"""One finding in plain words for each thing that was tested, its verdict first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.report.findings.attacks import about_membership, about_robustness
from attnpriv.report.findings.attention import about_attention, about_flow
from attnpriv.report.findings.base import QUESTIONS, Finding
from attnpriv.report.findings.causes import about_counterfactuals, about_memorisation
from attnpriv.report.findings.explanations import (
    about_attribution,
    about_conductance,
    about_faithfulness,
    about_occlusion,
    about_sensitivity,
)
from attnpriv.report.findings.promises import about_certificate, about_privacy, about_utility

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

__all__ = ["QUESTIONS", "Finding", "findings"]


def findings(result: AuditResult) -> tuple[Finding, ...]:
    """What the audit of one run means, one finding a measure, in the order of ``QUESTIONS``.

    Claim: a finding is "good" only where a proof or a card bounds something, or where a bias was
    looked for and points the other way. An attack that fails, or an effect that is not found, is
    at best "info".
    """
    return (
        about_privacy(result),
        about_utility(result.utility),
        about_certificate(result.attention.certificate),
        about_attention(result.attention),
        about_flow(result.flow, result.attention),
        about_attribution(result.attribution),
        about_conductance(result.conductance),
        about_occlusion(result.occlusion),
        about_faithfulness(result.faithfulness),
        about_sensitivity(result.sensitivity),
        about_counterfactuals(result.counterfactual),
        about_memorisation(result.memorisation),
        about_membership(result.membership),
        about_robustness(result.robustness),
    )
