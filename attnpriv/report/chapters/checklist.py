"""Behavioural tests: whether words that do not matter change answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
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
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import NO_ACTION, Finding, invalid, not_run
from attnpriv.report.formats import share
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.checklist.behaviour import ChecklistResult
    from attnpriv.audit.measures import AuditResult

NAME = "Behavioural tests"


def finding(result: AuditResult) -> Finding:
    """How many cases failed, and which test most."""
    measured = result.checklist
    if isinstance(measured, NotRun):
        return not_run("checklist", NAME, measured.not_run, NO_ACTION)
    if not measured.valid:
        return invalid("checklist", NAME, measured.positive, measured.null)
    worst = max(measured.tests, key=lambda test: test.failures.value or 0.0)
    text = f"{share(measured.invariance)} of the cases in which only a word changed that should "
    text += "not matter got another answer."
    if worst.failures.value:
        text += f" Most did in “{worst.name}”: {share(worst.failures)}."
    return Finding(
        "info",
        "Answers to texts that differ in words that should not matter",
        text,
        "checklist",
        "Write tests of your own for what must not matter, and hold the model to them by a gate.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The failure rate of each test, for all runs side by side."""
    yield Text(
        "The tests are templates in which one word is exchanged, such as a name, a place or the "
        "spelling of a word, and the answer must stay; or to which something is added that must "
        "not make a class less, or more, probable. A case fails where any of its changes does. The "
        "texts come from a file: no audited record is read."
    )
    yield Table(
        "Share of cases that fail",
        ("Model", "Test", "Kind", "Cases", "Failed", "Most in template"),
        tuple(row for run in runs for row in _rows(run.name, run.checklist)),
    )
    measured, _ = measured_of(runs, "checklist")  # the table says why not
    yield Grid(tuple(Box(tuple(_controls(*each))) for each in measured))
    yield How(
        "results[].checklist",
        "CheckList (Ribeiro et al. 2020). Intervals: Wilson, as if cases were independent, which "
        "those of one template are not.",
    )


def _rows(name: str, measured: ChecklistResult | NotRun) -> Iterator[Row]:
    if isinstance(measured, NotRun):
        yield name, Span(f"not run: {measured.not_run}", 5)
        return
    for test in measured.tests:
        worst = "" if test.worst_template is None else str(test.worst_template)
        yield name, test.name, test.kind, str(test.cases), part(test.failures), worst
    for kind, failures in (("invariance", measured.invariance), ("direction", measured.direction)):
        cases = sum(test.cases for test in measured.tests if test.kind == kind)
        yield name, "all", kind, str(cases), part(failures), ""


def _controls(name: str, measured: ChecklistResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(measured.valid)
    yield Controls(both(measured.positive, measured.null))
    yield Text(f"Tests: {measured.source}. SHA-256: {measured.sha256}.", "note")
    if measured.left_out:
        names = "; ".join(measured.left_out)
        yield Text(f"Left out, as they are about classes that this model lacks: {names}.", "note")


CHAPTER = Chapter(
    name="checklist",
    place=147,
    title="Behavioural tests",
    body=body,
    asks=Question(
        "Do words that should not matter change answers?",
        "Templates in which names, places, spellings and the like are exchanged, from a file that "
        "can be extended.",
        finding,
    ),
    figures=(
        Figure(
            "checklist.invariance",
            "cases of invariance that fail",
            shown="share",
            higher_is_worse=True,
            main=True,
        ),
        Figure(
            "checklist.direction",
            "directional cases that fail",
            shown="share",
            higher_is_worse=True,
        ),
    ),
)
