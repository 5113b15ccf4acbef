"""How far explanations move under tiny noise; a lower bound on the worst."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    How,
    Table,
    Text,
    both,
    est,
    validity,
)
from attnpriv.report.chapter import Chapter, Question
from attnpriv.report.findings import Finding, invalid
from attnpriv.report.formats import share

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

EXPLANATIONS = ("attention", "integrated_gradients")


def finding(result: AuditResult) -> Finding:
    """Whether an explanation moves by more than its own size."""
    sensitivity = result.sensitivity
    if not sensitivity.valid:
        controls = sensitivity.positive, sensitivity.null
        return invalid("sensitivity", "Stability of explanations", *controls)
    moves = {
        each.explanation.replace("_", " "): each.largest
        for each in sensitivity.explanations
        if each.explanation in EXPLANATIONS
    }
    moved = " and ".join(
        f"{name} by at least {share(move)} of its size" for name, move in moves.items()
    )
    text = f"Noise of {sensitivity.radius:g} deviations moves {moved}."
    if any((move.value or 0.0) >= 1 for move in moves.values()):
        return Finding(
            "warn",
            "An explanation moves by more than its own size",
            text,
            "sensitivity",
            "Do not show explanations of single records. Average over many records.",
        )
    return Finding(
        "info",
        "Explanations move by less than their own size",
        text,
        "sensitivity",
        "Treat differences between words that are smaller than this as none.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """How far each explanation moves, and the controls of each run."""
    yield Text(UNCOVERED)
    for run in runs:
        yield Table(
            f"Max-sensitivity of {run.name}: how far an explanation moves, relative to its size",
            ("Explanation", "Largest move"),
            tuple(
                (each.explanation.replace("_", " "), est(each.largest, 3))
                for each in run.sensitivity.explanations
            ),
        )
        yield from validity(run.sensitivity.valid)
        yield Controls(both(run.sensitivity.positive, run.sensitivity.null))
    first = runs[0].sensitivity
    yield How(
        "results[].sensitivity",
        f"Max-sensitivity: Yeh et al. 2019, {first.draws} draws of uniform noise of "
        f"{first.radius:g} deviations on {first.documents} of {first.sampled_from} records, seed "
        f"{first.seed}; a lower bound on the worst. Integrated gradients with {first.steps} points "
        "on each path, and more where they do not add up to within 1 %.",
    )


CHAPTER = Chapter(
    name="sensitivity",
    place=100,
    title="Stability of explanations",
    body=body,
    asks=Question(
        "Are the explanations stable?",
        "Explaining again under noise too small to matter.",
        finding,
    ),
)
