"""How much of what moved the answers is personal data: integrated gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.report.blocks import UNCOVERED, Block, How, Row, Table, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import (
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    Finding,
    above_chance,
    is_significant,
    not_run,
)
from attnpriv.report.formats import interval, number, percent
from attnpriv.report.lifts import lift_cells

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult


def finding(result: AuditResult) -> Finding:
    """Integrated gradients on personal data."""
    attribution = result.attribution
    lift = attribution.lift
    if lift.lift.value is None or attribution.share is None:
        name = "Attribution to personal data"
        return not_run("attribution", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    figure = (
        f"Personal data carries {attribution.share:.1%} of what moved the answers, "
        f"{interval(lift.lift)} times an average word's part"
    )
    if above_chance(lift):
        return Finding(
            "warn",
            "Answers rely on personal data more than on other words",
            f"{figure}: more than chance explains.",
            "attribution",
            "Read the swap test. If the purpose does not need personal data, mask it in training.",
        )
    if is_significant(lift.p_value):
        title, why = "Answers rely less on personal data than on other words", "."
    else:
        title = "No greater reliance on personal data than on other words was found"
        why = ", as chance alone gives."
    return Finding(
        "info",
        title,
        f"{figure}{why}",
        "attribution",
        "No action from this result alone; a smaller effect is still an effect.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The share and the lift of each run."""
    yield Text(
        Markup(
            "Attention alone is no explanation. Integrated gradients measure how much each word "
            "moved the predicted class, compared with a text of padding. {}"
        ).format(UNCOVERED)
    )
    columns = (
        "Model",
        "Records",
        "Share on personal data",
        "Lift",
        "By chance",
        "p",
        "Completeness error, mean",
        "largest",
    )
    yield Table("Integrated gradients on personal data", columns, tuple(map(_row, runs)))
    first = runs[0].attribution
    yield How(
        "results[].attribution",
        f"Integrated gradients: Sundararajan et al. 2017, by Captum with {first.steps} points on "
        "each path, and more where the scores do not add up to within 1 %; seed of the sample "
        f"{first.seed}. Completeness error: by how much, at most, the scores of a record miss the "
        "change of the class’s logit, which they should add up to. Records that stay above 5 % are "
        "counted, and take part with the scores that they have.",
    )


def _row(run: AuditResult) -> Row:
    a = run.attribution
    with_or_without = "with" if a.documents_with_sensitive else "without"
    unconverged = f" ({a.unconverged} above 5 %)" if a.unconverged else ""
    return (
        run.name,
        f"{a.documents} of {a.sampled_from} {with_or_without} personal data",
        percent(a.share),
        *lift_cells(a.lift, corrected=False),
        number(a.mean_completeness_error, 4),
        f"{number(a.largest_completeness_error, 4)}{unconverged}",
    )


CHAPTER = Chapter(
    name="attribution",
    place=60,
    title="What the answers rely on",
    body=body,
    asks=Question(
        "Do the answers rely on personal data?",
        "Integrated gradients: how much each word moved the answer.",
        finding,
    ),
    figures=(
        Figure(
            "attribution.lift.lift",
            "lift of integrated gradients",
            higher_is_worse=True,
            main=True,
            comparable=True,
        ),
    ),
)
