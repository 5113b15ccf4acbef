"""From an attack's scores to its figures, its ROC and the verdict on it.

Every attack that gives each record a score, higher for members, is read off here: the loss
threshold as well as attacks with reference models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from attnpriv.audit.statistics import Floats, auc
from attnpriv.errors import InputError
from attnpriv.estimates import Estimate
from attnpriv.rates import FPRS, Caught, TprAtFpr
from attnpriv.verdicts import ERROR, Claim, Judgement, judge

ROC_POINTS = 100


@dataclass(frozen=True)
class ScoredAttack:
    """What an attack's scores give.

    Attributes:
        auc: area under the ROC curve, with DeLong's interval.
        tpr: at each of ``FPRS``.
        roc: points (FPR, TPR), thinned evenly on the logarithm of the FPR.
        judgement: the verdict, by intervals that are corrected for the number of figures.
    """

    auc: Estimate
    tpr: tuple[TprAtFpr, ...]
    roc: tuple[tuple[float, float], ...]
    judgement: Judgement


def score_attack(
    members: Floats,
    non_members: Floats,
    claim: Claim | None,
    *,
    attacks: int = 1,
    beats_others: bool = True,
    valid: bool = True,
) -> ScoredAttack:
    """The figures of an attack, each between guessing and what the claim allows.

    Args:
        members: scores of records that were trained on, at least one.
        non_members: scores of records that were not, at least one.
        claim: of the model, if it has one.
        attacks: how many attacks share the chance of a false verdict.
        beats_others: whether it is above what stands beside it; else it has found nothing, however
            far above guessing it is.
        valid: whether the attack's controls passed.

    Raises:
        InputError: an empty group, or a score that is NaN.

    Claim: over all figures of all attacks together, FOUND and WITHIN THE CLAIM are wrong in at most
    2.5 % of audits, and so is BEYOND THE CLAIM, as far as the intervals cover: those of rates are
    exact, DeLong's is for large groups. Condition and limits as in ``attnpriv.verdicts``.
    """
    require_scores(members, non_members)
    caught = [_caught(fpr, members, non_members) for fpr in FPRS]
    tpr = tuple(each.rate() for each in caught)
    reported = [each for each, rate in zip(caught, tpr, strict=True) if rate.not_reported is None]
    error = ERROR / (attacks * (1 + len(reported)))
    figures = [
        ("AUC", auc(members, non_members, 2 * error), 0.5, claim.auc if claim else None),
        *(each.placed(claim, error) for each in reported),
    ]
    return ScoredAttack(
        auc=auc(members, non_members),
        tpr=tpr,
        roc=_roc(members, non_members),
        judgement=judge(figures, claim, found=None if beats_others else False, valid=valid),
    )


def require_scores(*groups: Floats) -> None:
    """Raise InputError for a group without scores, or with one that is NaN."""
    for scores in groups:
        if not len(scores) or np.isnan(scores).any():
            raise InputError("expected members and non-members with scores that are not NaN")


def _caught(fpr: float, members: Floats, non_members: Floats) -> Caught:
    through = int(fpr * len(non_members))
    threshold = np.sort(non_members)[::-1][through]
    caught = int((members > threshold).sum())
    return Caught(fpr, len(members), caught, len(non_members), through)


def _roc(members: Floats, non_members: Floats) -> tuple[tuple[float, float], ...]:
    """(FPR, TPR) points, thinned evenly on the logarithm of the FPR."""
    truth = np.repeat([1, 0], [len(members), len(non_members)])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([members, non_members]))
    wanted = np.geomspace(1 / len(non_members), 1, ROC_POINTS)
    index = np.unique(np.searchsorted(fpr, wanted, side="right") - 1)
    return tuple((float(fpr[i]), float(tpr[i])) for i in index)
