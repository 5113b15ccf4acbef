"""LiRA and RMIA on a run, with its shadow models: was this record in the training data?

The attacks are those of ``attnpriv.audit.leakage.likelihood``, on the same records as the loss
threshold, which stands beside them: what an attacker gains by having shadow models.

Claim: none. That these attacks find little proves nothing. Condition: members and non-members come
from a random split, as do the halves of the shadow models. Not covered: attackers who see more than
the confidence in the true label, and records of which too few shadow models are on either side.

Source: as in ``attnpriv.audit.leakage.likelihood``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage import membership
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.likelihood import (
    Bools,
    Confidences,
    lira,
    lira_offline,
    ratio,
    ratio_offline,
)
from attnpriv.audit.leakage.scores import ScoredAttack, score_attack
from attnpriv.audit.statistics import Floats, auc, auc_difference
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.estimates import Control, Estimate
from attnpriv.shadow_answers import EXPECTED, MUST_WIN, NAMES, NULL_ERROR, PLANTED, Name, too_few
from attnpriv.verdicts import Claim, Judgement, gravity


@dataclass(frozen=True)
class ShadowAttack(ScoredAttack):
    """An attack with shadow models; ``gain`` is its AUC less that of the loss threshold."""

    gain: Estimate


@dataclass(frozen=True)
class ShadowAttacksResult:
    """What attacks with shadow models find, beside the loss threshold on the same records.

    Attributes:
        models: how many shadow models there are.
        members: records that the run was trained on.
        non_members: records that it was not.
        left_out: further records, of which too few models are on either side.
        loss: the threshold on the run's own log-odds.
        lira: LiRA with models that saw the record and models that did not.
        lira_offline: LiRA with the latter alone.
        rmia: RMIA with both.
        rmia_offline: RMIA with the latter alone.
        gravest: which of the four the verdict is that of.
        judgement: its judgement.
        positive: a leak is planted in a shadow model and in the others.
        null: answers of models that did not see the record stand for the run's.
        valid: whether both controls passed.
        seed: of the null control.
    """

    models: int
    members: int
    non_members: int
    left_out: int
    loss: ScoredAttack
    lira: ShadowAttack
    lira_offline: ShadowAttack
    rmia: ShadowAttack
    rmia_offline: ShadowAttack
    gravest: Name
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool
    seed: int


def shadow_attacks(
    seen: Confidences, members: Bools, claim: Claim | None = None, seed: int = 0
) -> ShadowAttacksResult:
    """Attack a run by LiRA and RMIA, online and offline, with both controls.

    The positive control takes one shadow model for the run, after a leak of known size was planted
    in all of them: each attack must find it. The null control gives each record the answer of a
    model that was not trained on it, and nothing may be found. Where either fails, the result is
    not valid.

    Args:
        seen: what the run and its shadow models say about R records.
        members: which of them the run was trained on, [R].
        claim: of the run, if it has one.
        seed: of the null control.

    Raises:
        InputError: too few records of either kind have shadow models on both sides.
    """
    usable = seen.usable
    left_out, seen, members = int((~usable).sum()), seen.of(usable), members[usable]
    if members.all() or not members.any():
        raise too_few(len(seen.shadows))
    positive, null = _positive_control(seen), _null_control(seen, members, seed)
    valid = positive.passed and null.passed
    scores = _scores(seen)
    attacks = {name: _attack(scores[name], seen.target, members, claim, valid) for name in NAMES}
    gravest = max(NAMES, key=lambda name: gravity(attacks[name].judgement))
    return ShadowAttacksResult(
        models=len(seen.shadows),
        members=int(members.sum()),
        non_members=int((~members).sum()),
        left_out=left_out,
        loss=score_attack(*_split(seen.target, members), claim, valid=valid),
        **attacks,
        gravest=gravest,
        judgement=attacks[gravest].judgement,
        positive=positive,
        null=null,
        valid=valid,
        seed=seed,
    )


def _scores(seen: Confidences) -> dict[Name, Floats]:
    """Of each attack, [R]; RMIA's order is that of its ratios, whatever population it has."""
    return {
        "lira": lira(seen),
        "lira_offline": lira_offline(seen),
        "rmia": ratio(seen),
        "rmia_offline": ratio_offline(seen),
    }


def _split(scores: Floats, members: Bools) -> tuple[Floats, Floats]:
    return scores[members], scores[~members]


def _attack(
    scores: Floats, loss: Floats, members: Bools, claim: Claim | None, valid: bool
) -> ShadowAttack:
    split = _split(scores, members)
    scored = score_attack(*split, claim, attacks=len(NAMES), valid=valid)
    *_, gain = auc_difference(split, _split(loss, members))
    return ShadowAttack(scored.auc, scored.tpr, scored.roc, scored.judgement, gain)


def _positive_control(seen: Confidences) -> Control:
    """The attacks on a shadow model, where all of them know what they were trained on by heart."""
    planted = seen.shadows + max(PLANTED, PLANTED * seen.deviation) * seen.inside
    leaky = Confidences(planted[0], planted[1:], seen.inside[1:])
    members = seen.inside[0][leaky.usable]
    leaky = leaky.of(leaky.usable)
    areas = [auc(*_split(each, members)) for each in _scores(leaky).values()]
    return Control(
        EXPECTED[0],
        min(area.value or 0.0 for area in areas),
        all((area.low or 0.0) > MUST_WIN for area in areas),
    )


def _null_control(seen: Confidences, members: Bools, seed: int) -> Control:
    """Each answer is that of some model which was not trained on the record.

    The threshold on these answers finds out where members and non-members are no random split.
    """
    drawn = np.random.default_rng([seed, 4]).random(seen.inside.shape)
    models = np.where(seen.inside, -1.0, drawn).argmax(0)
    answers = seen.shadows[models, np.arange(len(models))]
    blind = Confidences(answers, seen.shadows, seen.inside)
    scores = (answers, *_scores(blind).values())
    areas = [auc(*_split(each, members), NULL_ERROR) for each in scores]
    values = [area.value or 0.0 for area in areas]
    return Control(
        EXPECTED[1],
        max(values, key=lambda value: abs(value - 0.5)),
        all((area.low or 0.0) <= 0.5 <= (area.high or 1.0) for area in areas),
    )


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> ShadowAttacksResult:
    """As a measure of an audit."""
    assert subject.shadows is not None
    members, non_members = membership.scores(subject, answers)
    held_out = [subject.rows.held_out[document] for document in subject.unseen]
    rows = np.array([*(subject.rows.members or ()), *held_out])
    return shadow_attacks(
        subject.shadows.confidences(np.concatenate([members, non_members]), rows),
        np.arange(len(rows)) < len(members),
        claim_of(subject.run),
        subject.options.seed,
    )
