"""The figures that comparisons are made of, as people call them."""

from __future__ import annotations

from attnpriv.audit.robustness.embedding import SCALES

MEASURES = {
    "utility.accuracy": "accuracy",
    "utility.macro_f1": "macro F1",
    "attention.overall.lift": "attention lift",
    "attention.matched.lift": "attention lift, matched",
    "flow.rollout.permuted.lift": "rollout lift",
    "flow.norm_weighted.permuted.lift": "norm-weighted lift",
    "attribution.lift.lift": "lift of integrated gradients",
    "faithfulness.rank_correlation.mean": "rank correlation",
    "attention.heads[*].normalised_entropy": "entropy of attention",
    "attention.heads[*].special_mass": "attention on special tokens",
    "counterfactual.overall.swap.change": "change by swapping",
    "counterfactual.overall.excess": "change beyond other words",
    "membership.auc": "membership AUC",
    "robustness.clean": "accuracy without attack",
    **{
        f"robustness.radii[{scale}].{kind}": f"accuracy, {name}, {scale:g} sd"
        for scale in SCALES
        for kind, name in (("fgsm", "FGSM"), ("strongest", "FGSM or PGD"))
    },
}
