"""What an attack on the training data found, between guessing and what the model's claim allows.

A differentially private training bounds every test whether one record was trained on: at a false
positive rate (FPR) its true positive rate (TPR) is at most

    min over the (ε, δ) that hold of  e^ε · FPR + δ  and  1 - e^-ε · (1 - δ - FPR)

(Wasserman and Zhou 2010, theorem 2.4; Dong, Roth and Su 2022, proposition 2.5, arXiv:1905.02383).
One mechanism has many such pairs, and the more of them are known, the tighter is the bound.

Claim: if the training keeps its claim, then the expected TPR of an attack that treats members and
non-members alike is within the bound at its expected FPR, and so is its AUC: what holds of each
record's curve holds of their average, since the bound is concave.
Condition: members and non-members are exchangeable, as after a random split.
Not covered: groups of records, such as all those of one person, and records that depend on each
other, so that one betrays others. Intervals cover the choice of records and not how one training
differs from the next, which is small where many records are attacked.

Plain Python, without numpy and torch, since the client's audit has neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from attnpriv.errors import InputError
from attnpriv.estimates import Estimate

Verdict = Literal[
    "CHANCE", "WITHIN THE CLAIM", "BEYOND THE CLAIM", "INCONCLUSIVE", "FOUND", "NOT FOUND"
]
Profile = tuple[tuple[float, float], ...]
"""Pairs (ε, δ) that hold of one mechanism."""

MEANINGS: dict[Verdict, str] = {
    "CHANCE": "this attack found nothing, which does not prove privacy",
    "WITHIN THE CLAIM": "this attack beats guessing, by no more than the model's ε allows",
    "BEYOND THE CLAIM": "this attack found more than the model's ε allows",
    "INCONCLUSIVE": "too little is known to say what this attack shows",
    "FOUND": "this attack beats guessing, and the model claims no ε",
    "NOT FOUND": "this attack found nothing, which does not prove privacy",
}
GRAVITY: tuple[Verdict, ...] = (
    "NOT FOUND",
    "CHANCE",
    "WITHIN THE CLAIM",
    "INCONCLUSIVE",
    "FOUND",
    "BEYOND THE CLAIM",
)
"""Verdicts, the gravest last."""
ERROR = 0.025  # the chance of a false finding, over all figures of an attack
LARGEST_EPSILON = 700.0  # e^709 is the largest float; beyond, a pair allows everything


@dataclass(frozen=True)
class Claim:
    """What a model claims about its training, and the most that it allows an attack.

    Attributes:
        epsilon: ε as on the model card.
        delta: δ as on the model card.
        basis: what the profile was computed from.
        profile: pairs (ε, δ) that all hold if the claim does.
        auc: the largest AUC that they allow.
    """

    epsilon: float
    delta: float
    basis: str
    profile: Profile
    auc: float


@dataclass(frozen=True)
class Placed:
    """One figure of an attack between what guessing gives and what the claim allows.

    Attributes:
        figure: its name.
        low: lower end of its interval, corrected for the number of figures.
        high: upper end of it.
        chance: the most that guessing gives.
        allowed: the most that the claim allows; None without a claim.
        verdict: on this figure alone.
    """

    figure: str
    low: float
    high: float
    chance: float
    allowed: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Judgement:
    """The verdict on an attack.

    Attributes:
        verdict: on all of its figures.
        allowed: the most that the claim allows of the main figure; None without a claim.
        claim: what they were measured against, where the model claims something.
        figures: each in its place; the first one is the main one.
    """

    verdict: Verdict
    allowed: float | None
    claim: Claim | None
    figures: tuple[Placed, ...]


def beats_chance(figures: Iterable[Placed]) -> bool:
    """Whether one of the figures of an attack is above what guessing gives."""
    return any(each.low > each.chance for each in figures)


def make_claim(
    epsilon: float, delta: float, basis: str, profile: Iterable[tuple[float, float]]
) -> Claim:
    """A claim with the AUC that it allows.

    Raises:
        InputError: no pair, or one that is no (ε, δ).
    """
    pairs = tuple(profile)
    if not pairs or not all(e >= 0 and 0 <= d <= 1 for e, d in pairs):
        raise InputError(f"expected pairs with epsilon >= 0 and delta in [0, 1], got {pairs}")
    return Claim(epsilon, delta, basis, pairs, allowed_auc(pairs))


def allowed_tpr(profile: Profile, fpr: float) -> float:
    """The largest true positive rate that a mechanism allows at a false positive rate.

    >>> round(allowed_tpr(((math.log(3), 0.0),), 0.01), 6)
    0.03

    Args:
        profile: pairs (ε, δ) that hold of it.
        fpr: in [0, 1].
    """
    return min(slope * fpr + intercept for slope, intercept in _lines(profile))


def allowed_auc(profile: Profile) -> float:
    """The largest area under an ROC curve that a mechanism allows, exact up to rounding.

    For pure ε it is e^ε / (1 + e^ε):

    >>> round(allowed_auc(((math.log(3), 0.0),)), 6)
    0.75
    """
    return math.fsum(
        (right[0] - left[0]) * (left[1] + right[1]) / 2
        for left, right in pairwise(allowed_curve(profile))
    )


def allowed_curve(profile: Profile) -> list[tuple[float, float]]:
    """The corners (FPR, TPR) of the curve that no attack passes, from FPR 0 to 1."""
    lines = _lines(profile)
    slope, height = min(lines, key=lambda line: (line[1], line[0]))
    corners = [(0.0, height)]
    while slope > 0:
        flatter = [line for line in lines if line[0] < slope]
        # The first to be met; of those met at one place, the flattest.
        at, slope, intercept = min(
            ((other[1] - height) / (slope - other[0]), *other) for other in flatter
        )
        height = intercept
        if at >= 1:
            break
        if at > corners[-1][0]:
            corners.append((at, slope * at + intercept))
    return [*corners, (1.0, 1.0)]


def for_groups(profile: Profile, size: int) -> Profile:
    """The pairs that hold for groups of records, where ``profile`` holds for one.

    >>> for_groups(((0.5, 0.0), (0.0, 0.01)), 3)
    ((1.5, 0.0), (0.0, 0.03))

    Source: Dwork and Roth 2014, theorem 2.2; for δ > 0, the sum of δ e^(iε) over i below the size.
    """
    pairs = [
        (size * epsilon, delta * math.fsum(math.exp(i * epsilon) for i in range(size)))
        for epsilon, delta in profile
        if size * epsilon <= LARGEST_EPSILON
    ]
    return tuple((epsilon, min(1.0, delta)) for epsilon, delta in pairs)


def judge(
    figures: Sequence[tuple[str, Estimate, float, float | None]],
    claim: Claim | None,
    *,
    found: bool | None = None,
    valid: bool = True,
) -> Judgement:
    """Place the figures of an attack and come to a verdict.

    A figure is BEYOND THE CLAIM if all of its interval is above what the claim allows,
    INCONCLUSIVE if a part of it is, else WITHIN THE CLAIM or CHANCE, by whether all of it is above
    what guessing gives. The attack's verdict is that of its main figure; another one changes it
    only by a finding, since few records leave every interval at low FPRs wide.

    Args:
        figures: name, interval, what guessing gives, and what the claim allows; the main one
            first. Their intervals together are wrong with chance ``ERROR`` at most at each end.
        claim: of the model, if it has one.
        found: whether the attack beats guessing, where a test of its own says so.
        valid: whether its controls passed; else nothing can be concluded.
    """
    placed = tuple(_place(*figure) for figure in figures)
    if found is None:
        found = beats_chance(placed)
    verdict = _verdict(placed, found, claimed=claim is not None) if valid else "INCONCLUSIVE"
    return Judgement(verdict, placed[0].allowed, claim, placed)


def gravity(judgement: Judgement) -> tuple[int, float]:
    """Orders attacks on one model: by their verdicts, then by the lower end of the main figure."""
    return GRAVITY.index(judgement.verdict), judgement.figures[0].low


def _verdict(placed: Sequence[Placed], found: bool, claimed: bool) -> Verdict:
    if not claimed:
        return "FOUND" if found else "NOT FOUND"
    if any(each.verdict == "BEYOND THE CLAIM" for each in placed):
        return "BEYOND THE CLAIM"
    if placed[0].verdict == "INCONCLUSIVE":
        return "INCONCLUSIVE"
    return "WITHIN THE CLAIM" if found else "CHANCE"


def _place(name: str, interval: Estimate, chance: float, allowed: float | None) -> Placed:
    low = 0.0 if interval.low is None else interval.low
    high = 1.0 if interval.high is None else interval.high
    verdict: Verdict
    if allowed is None:
        verdict = "FOUND" if low > chance else "NOT FOUND"
    elif low > allowed:
        verdict = "BEYOND THE CLAIM"
    elif high > allowed:
        verdict = "INCONCLUSIVE"
    else:
        verdict = "WITHIN THE CLAIM" if low > chance else "CHANCE"
    return Placed(name, low, high, chance, allowed, verdict)


def _lines(profile: Profile) -> list[tuple[float, float]]:
    """Slope and height at FPR 0 of all lines that the curve lies below."""
    held = [(epsilon, delta) for epsilon, delta in profile if epsilon <= LARGEST_EPSILON]
    steep = [(math.exp(epsilon), delta) for epsilon, delta in held]
    flat = [(math.exp(-e), 1 - math.exp(-e) * (1 - delta)) for e, delta in held]
    return [*steep, *flat, (0.0, 1.0)]
