"""The loss-threshold test: one that succeeds proves a leak, one that fails proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Box,
    Controls,
    Grid,
    Heading,
    How,
    Items,
    Plot,
    Text,
    both,
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
from attnpriv.report.formats import interval, percent, share
from attnpriv.report.roc import Bound, Curve, draw_roc
from attnpriv.verdicts import MEANINGS, Judgement, beats_chance

if TYPE_CHECKING:
    from attnpriv.audit.leakage.membership import MembershipResult
    from attnpriv.audit.measures import AuditResult
    from attnpriv.rates import TprAtFpr

ATTACK = Attack(
    measure="membership",
    name="Membership test",
    found="Membership can be inferred",
    nothing="No membership leak detected",
    harm="Do not give this model to anyone who must not learn who is in the training data.",
    rest="No action from this result alone: it was the simplest attack. Stronger ones need shadow "
    "models.",
)


def finding(result: AuditResult) -> Finding:
    """Whether members can be told from non-members."""
    test, name = result.membership, "Membership test"
    if isinstance(test, NotRun):
        return not_run("membership", name, test.not_run, TRAINING_DATA)
    if not test.valid:
        return invalid("membership", name, test.positive, test.null)
    return judged(test.judgement, test.auc)


def judged(judgement: Judgement, auc: Estimate) -> Finding:
    """The finding on a test that ran and whose controls, where it has any, passed."""
    meaning = "This attack found nothing, which does not prove privacy"
    if beats_chance(judgement.figures):
        meaning = "Members can be told from non-members better than by chance"
    text = f"{meaning} (AUC {interval(auc, 3)}; 0.5 is guessing)."
    return attack_finding(ATTACK, judgement, text)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The ROC of all runs, and what each run's test found."""
    yield Text(
        Markup(
            "The test guesses that a record was in the training data when the model is confident "
            "about its true class. An AUC of 0.5 is guessing. It does <b>not</b> prove privacy: "
            "this is a simple attack, and stronger ones exist. Where a model claims an ε, what the "
            "attack found stands between guessing and the most that this ε allows. {}"
        ).format(UNCOVERED)
    )
    yield Text(SCOPE)
    tested = [
        (number, run.name, run.membership)
        for number, run in enumerate(runs)
        if not isinstance(run.membership, NotRun)
    ]
    if tested:
        yield Plot(
            draw_roc(
                "roc",
                "ROC of the membership test",
                [Curve(number, name, test.auc, test.roc) for number, name, test in tested],
                [
                    Bound(number, name, claim)
                    for number, name, test in tested
                    if (claim := test.judgement.claim)
                ],
                smallest=min(1 / max(test.members, test.non_members) for *_, test in tested),
            ),
            "Plot: ROC of the membership test",
            "Left plainly, right on logarithmic axes: a curve above the dotted line at the left "
            "means that some members can be named with few false accusations. No attack on a model "
            "that keeps its ε is expected in the shaded area. The lists below hold the main "
            "figures; the JSON file holds every point.",
        )
    yield Grid(tuple(Box(tuple(_of_run(run.name, run.membership))) for run in runs))
    seed = f" Seed {tested[0][2].seed}." if tested else ""
    yield How(
        "results[].membership",
        "Loss threshold: Yeom et al. 2018. AUC intervals: DeLong et al. 1988; shares at a false "
        f"positive rate: Clopper and Pearson.{seed}",
    )


def _of_run(name: str, test: MembershipResult | NotRun) -> Iterator[Block]:
    yield Heading(name)
    if isinstance(test, NotRun):
        yield Text(f"Not run: {test.not_run}.")
        return
    yield Text(Markup("<b>{}</b>").format(_verdict(test)))
    repeated = ""
    if test.repeated:
        repeated = (
            f"; {test.repeated} held-out records were left out, since their text is also a "
            "training record"
        )
    groups = f"{test.members} members and {test.non_members} non-members{repeated}"
    yield Items((f"AUC {interval(test.auc, 3)}, {groups}", *map(_rate, test.tpr)))
    if claim := test.judgement.claim:
        yield Text(f"{allowance(claim)} From {claim.basis}.")
    yield in_place([placements(test.judgement)], Text(CORRECTED))
    yield Controls(both(test.positive, test.null))


def _verdict(test: MembershipResult) -> str:
    if not test.valid:
        return "INVALID: a control failed, so this test says nothing"
    return f"{test.judgement.verdict}: {MEANINGS[test.judgement.verdict]}"


def _rate(each: TprAtFpr) -> str:
    words = f"not reported, {each.not_reported}"
    if not each.not_reported:
        own = f"the threshold’s own rate may be up to {percent(each.fpr_high)}"
        words = f"{share(each.tpr)}; {own}"
    return f"true positive rate at {each.fpr * 100:g} % false positives: {words}"


CHAPTER = Chapter(
    name="membership",
    place=130,
    title="Recognising training records",
    body=body,
    asks=Question(
        "Can training records be recognised?",
        "A guess from the model's confidence in the true class.",
        finding,
    ),
    figures=(
        Figure(
            "membership.auc", "membership AUC", higher_is_worse=True, main=True, comparable=True
        ),
        Figure(
            "membership.judgement.allowed",
            "largest membership AUC that ε allows",
            "guarantee",
            higher_is_worse=True,
            main=True,
        ),
        Figure("membership.judgement.verdict", "membership verdict", "verdict", main=True),
    ),
)
