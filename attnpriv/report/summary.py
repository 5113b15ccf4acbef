"""The audit in one small table."""

from __future__ import annotations

from attnpriv.audit.results import Audit, AuditResult, Estimate

COLUMNS = (
    "model",
    "ε",
    "accuracy",
    "lift on personal data",
    "largest weight",
    "its bound",
    "membership AUC",
    "accuracy under PGD",
)


def headline(audit: Audit) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names, and one row of text a model; intervals are 95 %.

    Accuracy under attack is that at the middle radius.
    """
    return COLUMNS, [_row(result) for result in audit.results]


def _row(result: AuditResult) -> tuple[str, ...]:
    certificate = result.attention.certificate
    bound, epsilon = certificate.largest_weight_bound, result.card["epsilon"]
    attacked = result.robustness.radii[len(result.robustness.radii) // 2]
    membership = result.membership
    return (
        result.name,
        "none" if epsilon is None else f"{epsilon:.2f}",
        _interval(result.utility.accuracy),
        _interval(result.attention.overall.lift),
        f"{certificate.largest_weight:.3f}",
        "none" if bound is None else f"{bound:.3f}",
        "not run" if membership is None else _interval(membership.auc),
        f"{_interval(attacked.strongest)} at {attacked.radius:.3g}",
    )


def _interval(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]"
