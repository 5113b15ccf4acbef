"""The plots of the page."""

from attnpriv.report.plots.attention import (
    certified_weights,
    head_heatmap,
    lift_forest,
    type_forest,
)
from attnpriv.report.plots.effects import (
    comparison_forest,
    counterfactual_forest,
    membership_roc,
    robustness_curves,
)
from attnpriv.report.plots.explanations import agreement_forest, removal_curves

__all__ = [
    "agreement_forest",
    "certified_weights",
    "comparison_forest",
    "counterfactual_forest",
    "head_heatmap",
    "lift_forest",
    "membership_roc",
    "removal_curves",
    "robustness_curves",
    "type_forest",
]
