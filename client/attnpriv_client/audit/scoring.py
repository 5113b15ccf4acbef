"""From the scores of a membership attack to its figures and the verdict on it, in plain Python.

The formulas are those of ``attnpriv.audit.leakage.scores``.
"""

from __future__ import annotations

from collections.abc import Sequence

from attnpriv.rates import FPRS, Caught
from attnpriv.verdicts import ERROR, Claim, judge, make_claim
from attnpriv_client.audit.attack_results import Scored
from attnpriv_client.audit.statistics import Column, auc
from attnpriv_client.domain import ModelCard

Groups = tuple[Column, Column]
"""Scores of members, and of non-members."""


def score_attack(
    groups: Groups,
    claim: Claim | None,
    *,
    attacks: int = 1,
    beats_others: bool = True,
    valid: bool = True,
) -> Scored:
    """The figures of an attack, each between guessing and what the claim allows.

    Args:
        groups: scores of members, and of non-members; at least one each.
        claim: of the model, if it has one.
        attacks: how many attacks share the chance of a false verdict.
        beats_others: whether it is above what stands beside it; else it has found nothing.
        valid: whether the attack's controls passed.
    """
    caught = [_caught(fpr, *groups) for fpr in FPRS]
    tpr = tuple(each.rate() for each in caught)
    reported = [each for each, rate in zip(caught, tpr, strict=True) if rate.not_reported is None]
    error = ERROR / (attacks * (1 + len(reported)))
    figures = [
        ("AUC", auc(*groups, 2 * error), 0.5, claim.auc if claim else None),
        *(each.placed(claim, error) for each in reported),
    ]
    found = None if beats_others else False
    return Scored(auc(*groups), tpr, judge(figures, claim, found=found, valid=valid))


def claim_of(card: ModelCard | None) -> Claim | None:
    """What ε and δ on the card allow: more than the mechanism behind them, so a weaker test."""
    if card is None or not card.summary.private:
        return None
    epsilon, delta = card.summary.epsilon, card.summary.delta
    if epsilon is None or delta is None:
        return None
    return make_claim(epsilon, delta, "the model card's ε and δ", [(epsilon, delta)])


def split(scores: Sequence[float], members: Sequence[bool]) -> Groups:
    """Scores of members, and of non-members."""
    pairs = list(zip(scores, members, strict=True))
    return [s for s, is_in in pairs if is_in], [s for s, is_in in pairs if not is_in]


def may_be_chance(groups: Groups, error: float) -> tuple[float, bool]:
    """The AUC, and whether 0.5 is within its interval."""
    area = auc(*groups, error)
    value, low, high = area.value or 0.0, area.low or 0.0, area.high
    return value, low <= 0.5 <= (1.0 if high is None else high)


def _caught(fpr: float, members: Column, non_members: Column) -> Caught:
    through = int(fpr * len(non_members))
    threshold = sorted(non_members, reverse=True)[through]
    caught = sum(score > threshold for score in members)
    return Caught(fpr, len(members), caught, len(non_members), through)
