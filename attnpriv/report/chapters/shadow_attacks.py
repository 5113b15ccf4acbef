"""Attacks with shadow models: the strongest known ones from one confidence a record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    Heading,
    How,
    Plot,
    Row,
    Table,
    Text,
    both,
    est,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.claims import (
    CORRECTED,
    SCOPE,
    Attack,
    allowance,
    attack_finding,
    in_place,
    placements,
)
from attnpriv.report.findings import Finding, invalid, not_run
from attnpriv.report.formats import interval
from attnpriv.report.roc import Bound, Curve, draw_roc
from attnpriv.verdicts import MEANINGS, beats_chance

if TYPE_CHECKING:
    from attnpriv.audit.leakage.scores import ScoredAttack
    from attnpriv.audit.leakage.shadow_attacks import ShadowAttack, ShadowAttacksResult
    from attnpriv.audit.measures import AuditResult
    from attnpriv.rates import TprAtFpr

WORDS = {
    "lira": "LiRA",
    "lira_offline": "LiRA, offline",
    "rmia": "RMIA",
    "rmia_offline": "RMIA, offline",
}
LOSS = "loss threshold"
ATTACK = Attack(
    measure="shadow_attacks",
    name="Attack with shadow models",
    found="Membership can be inferred with shadow models",
    nothing="Attacks with shadow models found nothing",
    harm="Do not give this model to anyone who must not learn who is in the training data.",
    rest="No action from this result alone: only ε bounds what attacks find.",
)
TRAIN_THEM = (
    "Train shadow models on the training data with attnpriv shadows, and audit with --shadows."
)


def finding(result: AuditResult) -> Finding:
    """Whether an attacker with shadow models can tell members from non-members."""
    measured, name = result.shadow_attacks, "Attacks with shadow models"
    if isinstance(measured, NotRun):
        return not_run("shadow_attacks", name, measured.not_run, TRAIN_THEM)
    if not measured.valid:
        return invalid("shadow_attacks", name, measured.positive, measured.null)
    gravest: ShadowAttack = getattr(measured, measured.gravest)
    meaning = "None of the four attacks beats guessing; this does not prove privacy"
    if beats_chance(measured.judgement.figures):
        meaning = "Members can be told from non-members better than by chance"
    text = (
        f"{meaning} (AUC of {WORDS[measured.gravest]} {interval(gravest.auc, 3)}, of the loss "
        f"threshold {interval(measured.loss.auc, 3)}; 0.5 is guessing)."
    )
    return attack_finding(ATTACK, measured.judgement, text)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """For each run its attacks, their ROC curves, and the verdict on each."""
    yield Text(
        Markup(
            "An attacker who knows records like those of the training can train models like this "
            "one, some with a record and some without it, and ask of which kind this model’s "
            "answer looks. Offline attacks use only models without the record. The loss threshold "
            "needs no such models: what an attack gains above it is what these models tell. {}"
        ).format(UNCOVERED)
    )
    yield Text(SCOPE)
    for number, run in enumerate(runs):
        yield Heading(run.name)
        if isinstance(run.shadow_attacks, NotRun):
            yield Text(f"Not run: {run.shadow_attacks.not_run}.")
        else:
            yield from _of_run(number, run.name, run.shadow_attacks)
    yield How(
        "results[].shadow_attacks",
        "LiRA: Carlini et al. 2022, in log-odds; RMIA: Zarifzadeh et al. 2024, by the order of its "
        "ratios, and offline with a = 0.3. AUC intervals: DeLong et al. 1988; shares at a false "
        "positive rate: Clopper and Pearson.",
    )


def _of_run(number: int, name: str, measured: ShadowAttacksResult) -> Iterator[Block]:
    yield from validity(measured.valid)
    if measured.valid:
        verdict = measured.judgement.verdict
        yield Text(Markup("<b>{}</b>").format(f"{verdict}: {MEANINGS[verdict]}"))
    left_out = ""
    if measured.left_out:
        left_out = f"; {measured.left_out} records were left out, with too few models on a side"
    yield Text(
        f"{measured.models} shadow models, {measured.members} members and {measured.non_members} "
        f"non-members{left_out}. Seed {measured.seed}."
    )
    attacks: dict[str, ShadowAttack] = {key: getattr(measured, key) for key in WORDS}
    yield Table(
        f"Attacks with shadow models on {name}",
        ("Attack", "AUC", "Above the loss threshold", "TPR at 1 % FPR", "TPR at 0.1 % FPR",
         "Verdict"),
        (
            _row(LOSS, measured.loss, "", "see Recognising training records"),
            *(
                _row(WORDS[key], each, est(each.gain, 3), each.judgement.verdict)
                for key, each in attacks.items()
            ),
        ),
    )  # fmt: skip
    claim = measured.judgement.claim
    if claim:
        yield Text(f"{allowance(claim)} From {claim.basis}.")
    curves = [(LOSS, measured.loss), *((WORDS[key], each) for key, each in attacks.items())]
    yield Plot(
        draw_roc(
            f"shadow-roc-{number}",
            f"ROC of attacks with shadow models on {name}",
            [Curve(i, key, each.auc, each.roc) for i, (key, each) in enumerate(curves)],
            [Bound(0, name, claim)] if claim else [],
            smallest=1 / max(measured.members, measured.non_members),
        ),
        f"Plot: ROC of attacks with shadow models on {name}",
        "Left plainly, right on logarithmic axes: a curve above the dotted line at the left means "
        "that some members can be named with few false accusations.",
    )
    yield in_place(
        [
            [f"{WORDS[key]}, {line}" for line in placements(each.judgement)]
            for key, each in attacks.items()
        ],
        Text(CORRECTED),
    )
    yield Controls(both(measured.positive, measured.null))


def _row(name: str, attack: ScoredAttack, gain: str, verdict: str) -> Row:
    return name, est(attack.auc, 3), gain, *map(_rate, attack.tpr), verdict


def _rate(each: TprAtFpr) -> str:
    return each.not_reported or part(each.tpr)


CHAPTER = Chapter(
    name="shadow_attacks",
    place=135,
    title="Attacks with shadow models",
    body=body,
    asks=Question(
        "Can training records be recognised by an attacker with shadow models?",
        "LiRA and RMIA: models trained with and without a record tell how its answer looks.",
        finding,
    ),
    figures=(
        Figure("shadow_attacks.lira.auc", "LiRA AUC", higher_is_worse=True, main=True),
        Figure("shadow_attacks.rmia.auc", "RMIA AUC", higher_is_worse=True),
        Figure(
            "shadow_attacks.judgement.verdict",
            "verdict on attacks with shadow models",
            "verdict",
            main=True,
        ),
    ),
)
