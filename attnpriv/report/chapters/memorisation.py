"""Whether values seen in training matter more than values that were not."""

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
    How,
    Row,
    Span,
    Table,
    Text,
    both,
    est,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.claims import Attack, attack_finding
from attnpriv.report.findings import TRAINING_DATA, Finding, invalid, not_run
from attnpriv.report.formats import interval, p_value
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.memorisation import MemorisationResult

ATTACK = Attack(
    measure="memorisation",
    name="The memorisation test",
    found="Values seen in training were memorised",
    nothing="No memorised values were found",
    harm="Do not release. Train again with a smaller ε, or with these values masked.",
    rest="No action from this result alone: only ε bounds what a model remembers.",
)


def finding(result: AuditResult) -> Finding:
    """Whether the model learnt values by heart."""
    measured, name = result.memorisation, "The memorisation test"
    if isinstance(measured, NotRun):
        return not_run("memorisation", name, measured.not_run, TRAINING_DATA)
    if not measured.valid:
        return invalid("memorisation", name, measured.positive, measured.null)
    text = (
        f"Swapping a value seen in training costs the true class {interval(measured.difference)} "
        f"more log-odds than swapping one that was not ({measured.member_entities} and "
        f"{measured.held_out_entities} values)."
    )
    if not measured.flagged:
        text += " This test sees only what changes the answer's class."
    return attack_finding(ATTACK, measured.judgement, text)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Both groups of values, and what swapping them costs."""
    yield Text(
        Markup(
            "A model that knows a person by heart loses more when that person’s data is replaced "
            "than a model that never saw it. So values of training records are swapped, and values "
            "of held-out records that were never seen. {}"
        ).format(UNCOVERED)
    )
    yield Table(
        "Loss of the true class’s log-odds when a value is swapped",
        ("Model", "Seen: values, records", "Loss", "Not seen: values, records", "Loss",
         "Difference", "p", "AUC", "Left out", "Verdict"),
        tuple(_row(run.name, run.memorisation) for run in runs),
    )  # fmt: skip
    measured, _ = measured_of(runs, "memorisation")  # the table says why not
    if measured:
        yield Grid(tuple(Box(tuple(_controls(*each))) for each in measured))
        _, first = measured[0]
        yield How(
            "results[].memorisation",
            "One-sided permutation of records between the groups, "
            f"{first.permutations} draws; intervals by bootstrap over records, {first.resamples} "
            f"resamples, seed {first.seed}. Left out: values without a fitting replacement, or "
            "that cannot be told apart from values of the other group. AUC: of telling training "
            "records by the mean loss of their values, which a claim bounds as it bounds every "
            "test of one record.",
        )


def _row(name: str, measured: MemorisationResult | NotRun) -> Row:
    if isinstance(measured, NotRun):
        return name, Span(f"not run: {measured.not_run}", 9)
    return (
        name,
        f"{measured.member_entities}, {measured.member_documents}",
        est(measured.member_drop),
        f"{measured.held_out_entities}, {measured.held_out_documents}",
        est(measured.held_out_drop),
        est(measured.difference),
        p_value(measured.p_value),
        est(measured.auc),
        str(measured.left_out),
        measured.judgement.verdict if measured.valid else "INVALID",
    )


def _controls(name: str, measured: MemorisationResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(measured.valid)
    yield Controls(both(measured.positive, measured.null))


CHAPTER = Chapter(
    name="memorisation",
    place=120,
    title="Values seen in training",
    body=body,
    asks=Question(
        "Did the model memorise values seen in training?",
        "Swapping values of training records, compared with values never seen.",
        finding,
    ),
    figures=(
        Figure(
            "memorisation.difference",
            "extra log-odds lost on values seen in training",
            higher_is_worse=True,
            main=True,
        ),
        Figure("memorisation.judgement.verdict", "verdict on memorisation", "verdict"),
    ),
)
