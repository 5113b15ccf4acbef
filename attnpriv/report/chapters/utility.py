"""Whether the model beats naming the most frequent class: if not, all else says little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.report.blocks import UNCOVERED, Block, Box, Details, Grid, How, Table, Text, est
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import Finding
from attnpriv.report.formats import interval, share

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.utility import UtilityResult


def finding(result: AuditResult) -> Finding:
    """Whether the answers are better than a constant one."""
    utility = result.utility
    most = max((each.support for each in utility.classes), default=0) / max(utility.n, 1)
    figure = f"{share(utility.accuracy)} of the answers are right"
    usual = f"always naming the most frequent class would get {most:.1%} right"
    if (utility.accuracy.low or 0.0) <= most:
        return Finding(
            "warn",
            "No better than naming the most frequent class",
            f"{figure}; {usual}.",
            "utility",
            "Do not use this model. The findings below say little about one that has learned more.",
        )
    return Finding(
        "info",
        "Better than naming the most frequent class",
        f"{figure}; {usual}.",
        "utility",
        "Decide whether that is enough for the purpose, class by class.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Scores by class, and which classes are taken for which."""
    yield Text(UNCOVERED)
    yield Grid(tuple(Box(tuple(_classes(run.name, run.utility))) for run in runs), roomy=True)
    first = runs[0].utility
    yield How(
        "results[].utility",
        "Accuracy, precision and recall: Wilson’s interval. F1: bootstrap over records, "
        f"{first.resamples} resamples, seed {first.seed}. A class that was never predicted has "
        "precision 0.",
    )


def _classes(name: str, utility: UtilityResult) -> Iterator[Block]:
    yield Table(
        Markup("<b>{}</b>: {} records, accuracy {}, macro F1 {}").format(
            name, utility.n, share(utility.accuracy), interval(utility.macro_f1, 3)
        ),
        ("Class", "Records", "Precision", "Recall", "F1"),
        tuple(
            (each.label, str(each.support), est(each.precision), est(each.recall), est(each.f1))
            for each in utility.classes
        ),
    )
    labels = tuple(each.label for each in utility.classes)
    confusion = Table(
        f"Confusion of {name}. Rows: true class; columns: predicted class",
        ("True class", *labels),
        tuple(
            (label, *map(str, row)) for label, row in zip(labels, utility.confusion, strict=True)
        ),
    )
    yield Details(f"Confusion of {name}", (confusion,))


CHAPTER = Chapter(
    name="utility",
    place=20,
    title="Answers on held-out records",
    body=body,
    asks=Question(
        "How good are the answers?",
        "Predictions on held-out records, compared with their true classes.",
        finding,
    ),
    figures=(
        Figure("utility.accuracy", "accuracy", higher_is_worse=False, main=True, comparable=True),
        Figure("utility.macro_f1", "macro F1", higher_is_worse=False, main=True),
    ),
)
