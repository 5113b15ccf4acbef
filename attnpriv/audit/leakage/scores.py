"""From an attack's scores to its figures, its ROC and the verdict on it.

Every attack that gives each record a score, higher for members, is read off here: the loss
threshold as well as attacks with reference models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta
from sklearn.metrics import roc_curve

from attnpriv.audit.statistics import Floats, auc, clopper_pearson
from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.verdicts import ERROR, Claim, Judgement, allowed_tpr, judge

FPRS = (0.01, 0.001)
ROC_POINTS = 100


@dataclass(frozen=True)
class TprAtFpr:
    """True positive rate at a false positive rate.

    Attributes:
        fpr: the rate aimed at.
        tpr: share of members above the threshold, with the exact interval.
        fpr_high: upper end of the exact interval of the threshold's own false positive rate.
        not_reported: why there is no figure, if there is none.
    """

    fpr: float
    tpr: Estimate
    fpr_high: float | None = None
    not_reported: str | None = None


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
    tpr = tuple(_tpr_at(fpr, members, non_members) for fpr in FPRS)
    reported = [each.fpr for each in tpr if each.not_reported is None]
    error = ERROR / (attacks * (1 + len(reported)))
    figures = [
        ("AUC", auc(members, non_members, 2 * error), 0.5, claim.auc if claim else None),
        *(_bounded_rate(fpr, members, non_members, claim, error) for fpr in reported),
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


def _tpr_at(fpr: float, members: Floats, non_members: Floats) -> TprAtFpr:
    """The share of members above the threshold that lets ``fpr`` of the non-members through."""
    n, needed = len(non_members), round(1 / fpr)
    if n < needed:
        reason = f"needs at least {needed:,} non-members, there are {n:,}"
        return TprAtFpr(fpr, UNDEFINED, not_reported=reason)
    caught, through = _caught(fpr, members, non_members)
    tpr = clopper_pearson(caught, len(members))
    return TprAtFpr(fpr, tpr, clopper_pearson(through, n).high)


def _caught(fpr: float, members: Floats, non_members: Floats) -> tuple[int, int]:
    """How many members lie above the threshold, and how many non-members may."""
    through = int(fpr * len(non_members))
    threshold = np.sort(non_members)[::-1][through]
    return int((members > threshold).sum()), through


def _bounded_rate(
    fpr: float, members: Floats, non_members: Floats, claim: Claim | None, error: float
) -> tuple[str, Estimate, float, float | None]:
    """A rate with all of its error, half for itself and half for its threshold.

    The threshold is picked on these non-members, so its own false positive rate is uncertain; the
    verdict therefore compares with that rate's upper end, not with the rate aimed at.
    """
    caught, through = _caught(fpr, members, non_members)
    low, high = exact_interval(caught, len(members), error / 2)
    _, chance = exact_interval(through, len(non_members), error / 2)
    allowed = allowed_tpr(claim.profile, chance) if claim else None
    name = f"TPR at {100 * fpr:g} % FPR"
    return name, Estimate(caught / len(members), low, high), chance, allowed


def exact_interval(successes: int, n: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval, wrong with chance ``error`` at most at each end."""
    low = beta.ppf(error, successes, n - successes + 1) if successes else 0.0
    high = beta.isf(error, successes + 1, n - successes) if successes < n else 1.0
    return float(low), float(high)


def _roc(members: Floats, non_members: Floats) -> tuple[tuple[float, float], ...]:
    """(FPR, TPR) points, thinned evenly on the logarithm of the FPR."""
    truth = np.repeat([1, 0], [len(members), len(non_members)])
    fpr, tpr, _ = roc_curve(truth, np.concatenate([members, non_members]))
    wanted = np.geomspace(1 / len(non_members), 1, ROC_POINTS)
    index = np.unique(np.searchsorted(fpr, wanted, side="right") - 1)
    return tuple((float(fpr[i]), float(tpr[i])) for i in index)
