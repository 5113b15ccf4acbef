"""LiRA and RMIA on released probabilities: was this row in the training data?

The formulas are those of ``attnpriv.shadow_answers``, with the moments of
``attnpriv.audit.leakage.likelihood``; the figures stand beside those of the threshold on the same
rows. What a policy rounds or noises is used as it comes.

Claim: none. Condition: members and non-members come from a random split. The claim that the figures
are held against is that of the model card, as in ``membership``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import exp, log
from random import Random
from statistics import fmean

from attnpriv.estimates import Control
from attnpriv.shadow_answers import (
    EXPECTED,
    LEAST,
    MUST_WIN,
    NAMES,
    NULL_ERROR,
    OFFLINE_A,
    OWN_VARIANCE,
    PLANTED,
    SMALLEST_VARIANCE,
    Name,
    deviations,
    log_density,
    ratio_offline,
    ratio_online,
    too_few,
)
from attnpriv.verdicts import Claim, gravity
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.attack_results import ShadowAttack, ShadowAttacksResult
from attnpriv_client.audit.membership import flagged_rows, log_odds, repeated_texts
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.scoring import claim_of, may_be_chance, score_attack, split
from attnpriv_client.audit.shadow_answers import ShadowAnswers
from attnpriv_client.audit.statistics import auc, auc_gain
from attnpriv_client.domain import ModelCard

NO_SHADOWS = "no shadow models were given: attnpriv shadows trains them, --shadows takes the folder"


@dataclass(frozen=True)
class Record:
    """What the server and the shadow models say about one row.

    Attributes:
        target: the released log-odds of the true label.
        shadows: those of the shadow models.
        inside: whether each of them was trained on the row.
        member: whether the server's model was.
    """

    target: float
    shadows: tuple[float, ...]
    inside: tuple[bool, ...]
    member: bool

    @property
    def usable(self) -> bool:
        """Whether enough models on both sides say something about it."""
        return min(sum(self.inside), len(self.inside) - sum(self.inside)) >= LEAST

    def side(self, flag: bool) -> list[float]:
        """What the models say that were trained on it, or those that were not."""
        return [s for s, is_in in zip(self.shadows, self.inside, strict=True) if is_in is flag]


def shadow_attacks(
    answered: Sequence[Answered],
    positions: Sequence[int],
    shadows: ShadowAnswers,
    card: ModelCard | None,
    seed: int,
) -> ShadowAttacksResult:
    """Attack the rows with the answers of shadow models, with both controls.

    Args:
        answered: the rows.
        positions: the place of each in the data of the shadow models.
        shadows: what these say.
        card: whose claim the figures are held against; None if the caller may not read it.
        seed: of the null control.
    """
    repeated = repeated_texts(flagged_rows(answered))
    records = [
        _record(score, shadows, position, a.row.member)
        for a, position in zip(answered, positions, strict=True)
        if a.row.member is not None
        and a.row.text not in repeated
        and (score := log_odds(a)) is not None
    ]
    if not records:
        raise NotRunError("the server releases no probabilities")
    return attack(records, claim_of(card), seed)


def _record(score: float, shadows: ShadowAnswers, position: int, member: bool) -> Record:
    said = tuple(model[position] for model in shadows.log_odds)
    return Record(score, said, tuple(model[position] for model in shadows.inside), member)


def attack(records: Sequence[Record], claim: Claim | None, seed: int) -> ShadowAttacksResult:
    """As ``shadow_attacks``, from numbers."""
    models, usable = len(records[0].shadows), [each for each in records if each.usable]
    members = [each.member for each in usable]
    if all(members) or not any(members):
        raise NotRunError(str(too_few(models)))
    positive, null = _positive_control(usable), _null_control(usable, seed)
    valid, targets = positive.passed and null.passed, [each.target for each in usable]
    loss, attacks = split(targets, members), {}
    for name, scores in scores_of(usable).items():
        groups = split(scores, members)
        found = score_attack(groups, claim, attacks=len(NAMES), valid=valid)
        attacks[name] = ShadowAttack(**vars(found), gain=auc_gain(groups, loss))
    gravest = max(NAMES, key=lambda name: gravity(attacks[name].judgement))
    return ShadowAttacksResult(
        models=models,
        members=sum(members),
        non_members=len(members) - sum(members),
        left_out=len(records) - len(usable),
        loss=score_attack(loss, claim, valid=valid),
        attacks=attacks,
        gravest=gravest,
        judgement=attacks[gravest].judgement,
        positive=positive,
        null=null,
        valid=valid,
    )


def scores_of(records: Sequence[Record]) -> dict[Name, list[float]]:
    """The scores of each attack, one a record; each has ``LEAST`` models on either side."""
    models = len(records[0].shadows)
    sides = {
        flag: _Side.of([each.side(flag) for each in records], models) for flag in (True, False)
    }
    own = [_expit(each.target) for each in records]
    densities = {flag: _densities(records, side) for flag, side in sides.items()}
    inside, outside = (sides[flag].probability for flag in (True, False))
    return {
        "lira": [a - b for a, b in zip(densities[True], densities[False], strict=True)],
        "lira_offline": [
            deviations(each.target, mean, variance)
            for each, mean, variance in zip(
                records, sides[False].mean, sides[False].variance, strict=True
            )
        ],
        "rmia": [ratio_online(*each) for each in zip(own, inside, outside, strict=True)],
        "rmia_offline": [
            ratio_offline(*each, OFFLINE_A) for each in zip(own, outside, strict=True)
        ],
    }


@dataclass(frozen=True)
class _Side:
    """What the models of one side say about each record: moments of log-odds, mean probability."""

    mean: list[float]
    variance: list[float]
    probability: list[float]

    @classmethod
    def of(cls, said: Sequence[Sequence[float]], models: int) -> _Side:
        """From what these models say about each record, of so many on both sides."""
        mean = [fmean(each) for each in said]
        squares = [
            sum((value - middle) ** 2 for value in each)
            for each, middle in zip(said, mean, strict=True)
        ]
        free = [len(each) - 1 for each in said]
        own = [square / n for square, n in zip(squares, free, strict=True)]
        shared = sum(squares) / sum(free)
        variance = own if models >= OWN_VARIANCE else [shared] * len(own)
        return cls(
            mean,
            [max(each, SMALLEST_VARIANCE) for each in variance],
            [fmean(map(_expit, each)) for each in said],
        )


def _densities(records: Sequence[Record], side: _Side) -> list[float]:
    return [
        log_density(each.target, mean, variance, log(variance))
        for each, mean, variance in zip(records, side.mean, side.variance, strict=True)
    ]


def _positive_control(records: Sequence[Record]) -> Control:
    """The attacks on a shadow model, where all of them know what they were trained on by heart."""
    outside = _Side.of([each.side(False) for each in records], len(records[0].shadows))
    raised = max(PLANTED, PLANTED * fmean(outside.variance) ** 0.5)
    leaky = [_first_attacked(each, raised) for each in records]
    leaky = [each for each in leaky if each.usable]
    members = [each.member for each in leaky]
    if all(members) or not any(members):
        return Control(EXPECTED[0], 0.0, False)
    areas = [auc(*split(scores, members)) for scores in scores_of(leaky).values()]
    lowest = min(area.value or 0.0 for area in areas)
    return Control(EXPECTED[0], lowest, all((area.low or 0.0) > MUST_WIN for area in areas))


def _first_attacked(record: Record, raised: float) -> Record:
    said = tuple(s + raised * is_in for s, is_in in zip(record.shadows, record.inside, strict=True))
    return Record(said[0], said[1:], record.inside[1:], record.inside[0])


def _null_control(records: Sequence[Record], seed: int) -> Control:
    """Each answer is that of some model which was not trained on the record."""
    rng = Random(f"{seed} unseen")
    blind = [replace(each, target=rng.choice(each.side(False))) for each in records]
    members = [each.member for each in blind]
    scores = [[each.target for each in blind], *scores_of(blind).values()]
    areas = [may_be_chance(split(each, members), NULL_ERROR) for each in scores]
    furthest = max((value for value, _ in areas), key=lambda value: abs(value - 0.5))
    return Control(EXPECTED[1], furthest, all(passed for _, passed in areas))


def _expit(value: float) -> float:
    return 1 / (1 + exp(-value)) if value > 0 else exp(value) / (1 + exp(value))
