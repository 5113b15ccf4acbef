"""The audit in one small table."""

from __future__ import annotations

from attnpriv.audit.results import Audit, AuditResult, Estimate
from attnpriv.rounding import round_up

Row = tuple[str, ...]


def headline(audit: Audit) -> tuple[Row, list[Row]]:
    """Column names, one a model, and one row of text a measure; intervals are 95 %."""
    measures = [_measures(result) for result in audit.results]
    rows = [(name, *(each[name] for each in measures)) for name in measures[0]]
    return ("", *(result.name for result in audit.results)), rows


def _measures(result: AuditResult) -> dict[str, str]:
    certificate = result.attention.certificate
    bound, epsilon = certificate.largest_weight_bound, result.card["epsilon"]
    # The middle one of the three radii.
    attacked = result.robustness.radii[len(result.robustness.radii) // 2]
    membership = result.membership
    return {
        "ε of the training": "none" if epsilon is None else round_up(epsilon, 2),
        "accuracy": _interval(result.utility.accuracy),
        "attention lift on personal data": _interval(result.attention.overall.lift),
        "largest attention weight": f"{certificate.largest_weight:.3f}",
        "its certified bound": "none" if bound is None else round_up(bound, 3),
        "membership AUC": "not run" if membership is None else _interval(membership.auc),
        f"accuracy under PGD at {attacked.scale:g} sd": _interval(attacked.strongest),
    }


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
