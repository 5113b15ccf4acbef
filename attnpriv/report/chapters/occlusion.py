"""Whether a second method says the same: leaving out one word at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Details,
    How,
    Plot,
    Table,
    Text,
    Words,
    between,
    est,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import Row, forest
from attnpriv.report.findings import Finding, is_significant, not_run
from attnpriv.report.formats import interval, p_value, percent
from attnpriv.report.lifts import token_lifts

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.second_opinion import SecondOpinionResult

ORDER = ("attention", "leaving one out", "GradCAM", "HiResCAM")  # of the methods in the plot


def finding(result: AuditResult) -> Finding:
    """Whether leaving words out ranks them as integrated gradients does."""
    occlusion = result.occlusion
    correlation = occlusion.rank_correlation
    if correlation.value is None:
        reason = "no record had words that differ in their effect"
        return not_run("occlusion", "The second method", reason, "Audit longer records.")
    figure = (
        "Leaving out words one at a time ranks them like integrated gradients with a correlation "
        f"of {interval(correlation)}, in {occlusion.rank_documents} records"
    )
    if correlation.value > 0 and is_significant(occlusion.rank_p_value):
        return Finding(
            "info",
            "Two methods agree beyond chance on which words matter",
            f"{figure}; 1 would be the same order.",
            "occlusion",
            "The weaker the agreement, the less you should read into single words.",
        )
    return Finding(
        "warn",
        "Two methods do not agree on which words matter",
        f"{figure}, no more than chance gives.",
        "occlusion",
        "Do not rely on either method for single words. Rely on the swap test.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """How alike methods rank the words, and the lift of each method."""
    yield Text(
        Markup(
            "Leaving out one word at a time is a second opinion on integrated gradients: both "
            "compare the text with the same padding, by different means. {}"
        ).format(UNCOVERED)
    )
    yield Plot(
        _agreement(runs),
        "Plot: rank correlations",
        "Do other methods rank the words as integrated gradients do? Means over records, with "
        "95 % intervals.",
    )
    yield Table(
        "Rank correlations with integrated gradients",
        ("Model", "of", "Records", "Spearman’s ρ", "By chance", "p"),
        tuple(row for run in runs for row in _correlations(run)),
    )
    for run in runs:
        measured, name = run.occlusion, run.name
        caption = f"Leaving one out beside integrated gradients on the same records, {name}"
        words = (
            f"{measured.documents} of {measured.sampled_from} records, "
            f"{percent(measured.share)} of the effect on personal data."
        )
        methods = [measured.lift, measured.integrated_gradients]
        blocks = (Text(words), token_lifts(caption, methods, "Method"))
        yield Details(f"Leaving one out: {name}", blocks)
    yield How(
        "results[].occlusion, results[].faithfulness.rank_correlation",
        "Leaving one out: Zeiler and Fergus 2014. By chance: the scores shuffled among the words "
        "of each record.",
    )


def _correlations(run: AuditResult) -> Iterator[tuple[Words, ...]]:
    if not isinstance(run.faithfulness, NotRun):
        rank = run.faithfulness.rank_correlation
        null = between(rank.null_low, rank.null_high, 2)
        yield (
            run.name, "attention", str(rank.documents), est(rank.mean), null, p_value(rank.p_value)
        )  # fmt: skip
    for name, other in _others(run):
        yield (
            run.name,
            name,
            str(other.rank_documents),
            est(other.rank_correlation),
            between(other.null_low, other.null_high, 2),
            p_value(other.rank_p_value),
        )


def _others(run: AuditResult) -> Iterator[tuple[str, SecondOpinionResult]]:
    yield "leaving one out", run.occlusion
    if not isinstance(run.gradcam, NotRun):
        yield "GradCAM", run.gradcam.gradcam
        yield "HiResCAM", run.gradcam.hirescam


def _agreement(runs: Sequence[AuditResult]) -> Markup:
    """How alike integrated gradients and each of the others rank the words."""
    rows = []
    for number, run in enumerate(runs):
        if not isinstance(run.faithfulness, NotRun):
            rank = run.faithfulness.rank_correlation
            null = rank.null_low, rank.null_high
            rows.append(Row("attention", number, run.name, rank.mean, null))
        for name, other in _others(run):
            null = other.null_low, other.null_high
            rows.append(Row(name, number, run.name, other.rank_correlation, null))
    rows.sort(key=lambda row: ORDER.index(row.group))
    label = "rank correlation with integrated gradients (1: same order); grey: what chance gives"
    title = "Rank correlation with integrated gradients"
    return forest("agreement", title, rows, label, 0.0)


CHAPTER = Chapter(
    name="occlusion",
    place=80,
    title="A second method: leaving words out",
    body=body,
    asks=Question(
        "Does a second method say the same?",
        "Leaving out one word at a time, compared with integrated gradients.",
        finding,
    ),
    figures=(
        Figure("occlusion.lift.permuted.lift", "lift of leaving one out", higher_is_worse=True),
    ),
)
