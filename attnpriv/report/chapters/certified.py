"""How many answers no choice of a few edits can change: a proof, where a model allows one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness import EDITS
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
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import Finding, invalid, not_run
from attnpriv.report.formats import share
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.certified import CertifiedResult
    from attnpriv.audit.measures import AuditResult

NAME = "Certified answers"


def finding(result: AuditResult) -> Finding:
    """Which part of the right answers withstands any one substitution."""
    measured = result.certified
    if isinstance(measured, NotRun):
        action = "Train with --encoder words where answers must withstand edits of the text."
        return not_run("certified", NAME, measured.not_run, action)
    if not measured.valid:
        return invalid("certified", NAME, measured.positive, measured.null)
    one, *_ = measured.of_right
    if not measured.right:
        return not_run("certified", NAME, "no answer was right", "Train a better model first.")
    return Finding(
        "info",
        "Part of the answers are proved to withstand edits",
        f"{share(one.substitutions)} of the right answers stay the same whatever any one token "
        f"becomes, {share(one.any_edits)} under any one edit. A changed word may be several "
        "tokens.",
        "certified",
        "Hold back answers that withstand fewer edits than a writer could make unnoticed.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The certified shares of each run at each number of edits, and the controls."""
    yield Text(
        Markup(
            "Where a model reads tokens one by one, a formula says how many of a text’s tokens can "
            "be substituted by any others of the vocabulary, deleted, or inserted anywhere, "
            "without changing the answer. No attack can do better. It does not say that an edited "
            "text means the same, and a changed word may be several tokens. {}"
        ).format(UNCOVERED)
    )
    for title, of in (("right answers", "of_right"), ("all records", "shares")):
        yield Table(
            f"Share of {title} that are right whatever the edits",
            ("Model", "Edits", "Substitutions", "Deletions", "Insertions", "Any edits"),
            tuple(row for run in runs for row in _rows(run.name, run.certified, of)),
        )
    measured, _ = measured_of(runs, "certified")  # the table says why not
    yield Grid(tuple(Box(tuple(_controls(*each))) for each in measured))
    yield How(
        "results[].certified",
        "Exact up to margins that float32 cannot tell from a tie, which count as changed; of a "
        "text that fills the model’s length, lower bounds for deletions and insertions. Intervals: "
        "Wilson.",
    )


def _rows(name: str, measured: CertifiedResult | NotRun, of: str) -> Iterator[Row]:
    if isinstance(measured, NotRun):
        yield name, Span(f"not run: {measured.not_run}", 5)
        return
    for each in getattr(measured, of):
        kinds = (each.substitutions, each.deletions, each.insertions, each.any_edits)
        yield name, str(each.edits), *map(part, kinds)


def _controls(name: str, measured: CertifiedResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(measured.valid)
    yield Controls(both(measured.positive, measured.null))
    yield Text(
        f"{measured.right} of {measured.documents} answers are right: {share(measured.clean)}. "
        f"{measured.filled} texts fill the model’s length.",
        "note",
    )


def _figures() -> Iterator[Figure]:
    kinds = {
        "substitutions": "substitutions",
        "deletions": "deletions",
        "insertions": "insertions",
        "any_edits": "edits of any kind",
    }
    for edits in EDITS:
        for kind, name in kinds.items():
            yield Figure(
                f"certified.of_right[{edits}].{kind}",
                f"right answers certified against {edits} {name}",
                shown="share",
                higher_is_worse=False,
            )


CHAPTER = Chapter(
    name="certified",
    place=145,
    title="Answers that no edit changes",
    body=body,
    asks=Question(
        "How many answers are proved to withstand edits of the text?",
        "The exact number of token edits that each answer withstands, for models that read tokens "
        "one by one.",
        finding,
    ),
    figures=tuple(_figures()),
)
