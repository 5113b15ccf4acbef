"""The loss-threshold test: one that succeeds proves a leak, one that fails proves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
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
from attnpriv.report.drawing import DASHES, SERIES, SOFT, STAND_INS, as_svg, canvas, short
from attnpriv.report.findings import TRAINING_DATA, Finding, capitalised, invalid, not_run
from attnpriv.report.formats import interval, percent, share

if TYPE_CHECKING:
    from attnpriv.audit.leakage.membership import MembershipResult, TprAtFpr
    from attnpriv.audit.measures import AuditResult


def finding(result: AuditResult) -> Finding:
    """Whether members can be told from non-members."""
    test, name = result.membership, "Membership test"
    if isinstance(test, NotRun):
        return not_run("membership", name, test.not_run, TRAINING_DATA)
    if not test.valid:
        return invalid("membership", name, test.positive, test.null)
    kind, _, meaning = test.verdict.partition(": ")
    text = f"{capitalised(meaning)} (AUC {interval(test.auc, 3)}; 0.5 is guessing)."
    if kind == "LEAK FOUND":
        return Finding(
            "bad",
            "Membership can be inferred",
            text,
            "membership",
            "Do not give this model to anyone who must not learn who is in the training data.",
        )
    return Finding(
        "info",
        "No membership leak detected",
        text,
        "membership",
        "No action from this result alone: it was the simplest attack, and stronger ones were not "
        "run.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The ROC of all runs, and what each run's test found."""
    yield Text(
        Markup(
            "The test guesses that a record was in the training data when the model is confident "
            "about its true class. An AUC of 0.5 is guessing. It does <b>not</b> prove privacy: "
            "this is a simple attack, and stronger ones exist. {}"
        ).format(UNCOVERED)
    )
    tested = [
        (number, run.name, run.membership)
        for number, run in enumerate(runs)
        if not isinstance(run.membership, NotRun)
    ]
    if tested:
        yield Plot(
            _roc(tested),
            "Plot: ROC of the membership test",
            "On logarithmic axes: a curve above the dotted line at the left means that some "
            "members can be named with few false accusations. The lists below hold the main "
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
    yield Text(Markup("<b>{}.</b>").format(test.verdict))
    repeated = ""
    if test.repeated:
        repeated = (
            f"; {test.repeated} held-out records were left out, since their text is also a "
            "training record"
        )
    groups = f"{test.members} members and {test.non_members} non-members{repeated}"
    yield Items((f"AUC {interval(test.auc, 3)}, {groups}", *map(_rate, test.tpr)))
    yield Controls(both(test.positive, test.null))


def _rate(each: TprAtFpr) -> str:
    words = f"not reported, {each.not_reported}"
    if not each.not_reported:
        own = f"the threshold’s own rate may be up to {percent(each.fpr_high)}"
        words = f"{share(each.tpr)}; {own}"
    return f"true positive rate at {each.fpr * 100:g} % false positives: {words}"


def _roc(tested: Sequence[tuple[int, str, MembershipResult]]) -> Markup:
    """ROC curves on logarithmic axes, where the exposed few would show."""
    floor = min(1 / max(m.members, m.non_members) for _, _, m in tested)
    with canvas(4.6, 3.9) as (figure, axes):
        axes.plot([floor, 1], [floor, 1], color=SOFT, linestyle=":", label="guessing")
        for run, name, test in tested:
            shown = [(fpr, tpr) for fpr, tpr in test.roc if fpr > 0 and tpr > 0]
            style = {"color": STAND_INS[f"s{run % SERIES}"], "linestyle": DASHES[run % SERIES]}
            line = {"label": short(name), "drawstyle": "steps-post"}
            axes.plot([x for x, _ in shown], [y for _, y in shown], **style, **line)
        axes.set(xscale="log", yscale="log", xlim=(floor, 1), ylim=(floor, 1.1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_xlabel("false positive rate")
        axes.set_ylabel("true positive rate")
        axes.legend(loc="lower right")
        words = (f"{name}: AUC {test.auc.value or 0.0:.3f}" for _, name, test in tested)
        return as_svg(figure, "roc", "ROC of the membership test", words)


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
    ),
)
