"""What attention maps and attributions tell of the training data, beside what needs no model."""

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
from attnpriv.report.findings import TRAINING_DATA, Finding, invalid, not_run
from attnpriv.report.formats import interval

if TYPE_CHECKING:
    from attnpriv.audit.leakage.explanation_attacks import (
        ExplanationAttack,
        ExplanationAttacksResult,
    )
    from attnpriv.audit.leakage.scores import ScoredAttack
    from attnpriv.audit.measures import AuditResult
    from attnpriv.rates import TprAtFpr
    from attnpriv.verdicts import Judgement

WORDS = {
    "attention": "attention maps",
    "attributions": "attributions",
    "together": "both and the loss",
}
LOSS, TEXTS = "loss threshold", "the texts alone, without the model"
ATTACK = Attack(
    measure="explanation_attacks",
    name="Attacks on explanations",
    found="Explanations tell who was trained on, beyond the answers",
    nothing="Explanations add nothing to what the answers tell of the training data",
    harm="Do not give attention maps and attributions of this model to anyone who must not learn "
    "who is in the training data, or train with an ε.",
    rest="No action from this result alone: the answers themselves may tell, as the membership "
    "test says.",
)


def finding(result: AuditResult) -> Finding:
    """Whether explanations tell members from non-members better than the loss and the texts do."""
    measured, name = result.explanation_attacks, "Attacks on explanations"
    if isinstance(measured, NotRun):
        return not_run("explanation_attacks", name, measured.not_run, TRAINING_DATA)
    if not measured.valid:
        failed = (measured.positive, measured.null, measured.split)
        return invalid("explanation_attacks", name, *failed)
    gravest: ExplanationAttack = getattr(measured, measured.gravest)
    text = (
        f"The attack by {WORDS[measured.gravest]} reaches an AUC of {interval(gravest.auc, 3)}; "
        f"the loss threshold on the same records {interval(measured.loss.auc, 3)}, and an attack "
        f"that sees the texts and no model {interval(measured.texts.auc, 3)}."
    )
    return attack_finding(ATTACK, measured.judgement, text)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """For each run its attacks beside the two that need no explanation."""
    yield Text(
        Markup(
            "An attacker who knows of some records whether they were trained on can learn what "
            "the attention maps and attributions of such records look like, and ask about others. "
            "What is found counts only where it beats guessing, the loss threshold, which needs "
            "no explanation, and an attack on the texts alone, which needs no model: if texts "
            "alone tell who was trained on, the split is to blame and not the model. {}"
        ).format(UNCOVERED)
    )
    yield Text(SCOPE)
    yield Text(
        "Not covered: other attack models than a regression on summaries of each head and of the "
        "attributions, attackers who train shadow models, and explanations of other classes than "
        "the one that was answered."
    )
    for run in runs:
        yield Heading(run.name)
        if isinstance(run.explanation_attacks, NotRun):
            yield Text(f"Not run: {run.explanation_attacks.not_run}.")
        else:
            yield from _of_run(run.name, run.explanation_attacks)
    yield How(
        "results[].explanation_attacks",
        "Attention: Zaree et al. 2026 (AttenMIA): concentration of each head, consistency with the "
        "next layer, shift under blanked positions. Attributions: Shokri et al. 2021, on "
        "integrated gradients by four points. AUC intervals: DeLong et al. 1988; differences and "
        "p: bootstrap of the attacked records, the same for all attacks.",
    )


def _of_run(name: str, measured: ExplanationAttacksResult) -> Iterator[Block]:
    yield from validity(measured.valid)
    if measured.valid:
        yield Text(Markup("<b>{}</b>").format(_verdict(measured.judgement)))
    yield Text(
        f"{measured.members} members and {measured.non_members} non-members were attacked, after "
        f"the attack models were fitted to {measured.fitted} other records. "
        f"{measured.resamples} resamples, seed {measured.seed}."
    )
    attacks: dict[str, ExplanationAttack] = {key: getattr(measured, key) for key in WORDS}
    yield Table(
        f"Attacks on explanations of {name}",
        ("Attack", "AUC", "Above the loss threshold", "Above the texts alone", "p",
         "TPR at 1 % FPR",
            "TPR at 0.1 % FPR", "Verdict"),
        (
            _row(LOSS, measured.loss, "", "", "", "see Recognising training records"),
            _row(TEXTS, measured.texts, "", "", "", ""),
            *(
                _row(WORDS[key], each, est(each.above_loss, 3), est(each.above_texts, 3),
                     f"{each.p_value:.3f}", each.judgement.verdict)
                for key, each in attacks.items()
            ),
        ),
    )  # fmt: skip
    if claim := measured.judgement.claim:
        yield Text(f"{allowance(claim)} From {claim.basis}.")
    yield in_place(
        [
            [f"{WORDS[key]}, {line}" for line in placements(each.judgement)]
            for key, each in attacks.items()
        ],
        Text(f"Each figure is held against guessing and the claim alone. {CORRECTED}"),
    )
    yield Controls((*both(measured.positive, measured.null), ("Split", measured.split)))


def _verdict(judged: Judgement) -> str:
    meanings = {
        "FOUND": "explanations tell more of the training data than the loss and the texts do",
        "NOT FOUND": "explanations tell nothing beyond the loss and the texts, which does not "
        "prove privacy",
        "CHANCE": "explanations tell nothing beyond the loss and the texts, which does not prove "
        "privacy",
        "WITHIN THE CLAIM": "explanations tell more than the loss and the texts do, and no more "
        "than the model’s ε allows",
        "BEYOND THE CLAIM": "an attack on explanations found more than the model’s ε allows",
        "INCONCLUSIVE": "there are too few records to hold the attacks against the model’s ε",
    }
    return f"{judged.verdict}: {meanings[judged.verdict]}"


def _row(name: str, attack: ScoredAttack, *cells: str) -> Row:
    *middle, verdict = cells
    return name, est(attack.auc, 3), *middle, *map(_rate, attack.tpr), verdict


def _rate(each: TprAtFpr) -> str:
    return each.not_reported or part(each.tpr)


CHAPTER = Chapter(
    name="explanation_attacks",
    place=138,
    title="Training records in explanations",
    body=body,
    asks=Question(
        "Do attention maps and attributions tell who was trained on?",
        "Attack models on explanations, beside the loss and the texts alone.",
        finding,
    ),
    figures=(
        Figure(
            "explanation_attacks.attention.auc", "membership AUC of attention", digits=3,
            higher_is_worse=True,
        ),
        Figure(
            "explanation_attacks.attributions.auc", "membership AUC of attributions", digits=3,
            higher_is_worse=True,
        ),
        Figure(
            "explanation_attacks.together.above_loss",
            "membership AUC that explanations add to the loss", digits=3, higher_is_worse=True,
        ),
        Figure(
            "explanation_attacks.judgement.verdict", "verdict on attacks on explanations",
            "verdict",
        ),
    ),
)  # fmt: skip
