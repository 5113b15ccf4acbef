"""Where the feature maps lie that speak for the answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import UNCOVERED, Block, Details, How, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import (
    NO_ACTION,
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    Finding,
    above_chance,
    not_run,
)
from attnpriv.report.formats import interval, percent
from attnpriv.report.lifts import token_lifts
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.gradcam import GradCamResult
    from attnpriv.audit.measures import AuditResult

COARSE = "A position of a feature map has seen its neighbours, so that the map is coarse."


def finding(result: AuditResult) -> Finding:
    """Both maps on personal data, beside integrated gradients on the same records."""
    measured, name = result.gradcam, "GradCAM"
    if isinstance(measured, NotRun):
        return not_run("gradcam", name, measured.not_run, NO_ACTION)
    lifts = [each.lift.permuted for each in (measured.gradcam, measured.hirescam)]
    if any(lift.lift.value is None for lift in lifts):
        return not_run("gradcam", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    agree = [each.rank_correlation for each in (measured.gradcam, measured.hirescam)]
    text = (
        "Personal data gets "
        f"{interval(lifts[0].lift)} times an average position’s part of the feature maps that "
        f"speak for the answer by GradCAM, {interval(lifts[1].lift)} times by HiResCAM; their "
        f"rankings agree with integrated gradients’ by {interval(agree[0])} and "
        f"{interval(agree[1])}. {COARSE}"
    )
    if any(map(above_chance, lifts)):
        return Finding(
            "warn",
            "Feature maps speak for answers more on personal data than elsewhere",
            text,
            "gradcam",
            "Read the swap test, which changes the data itself.",
        )
    title = "Feature maps do not speak for answers more on personal data than elsewhere"
    return Finding("info", title, text, "gradcam", NO_ACTION)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The lift of both maps of each run beside that of integrated gradients."""
    yield Text(
        Markup(
            "GradCAM weighs the maps of the last convolutions by how much the answer hangs on "
            "each, HiResCAM by how much it hangs on each place of each; both show where their sum "
            "speaks for the answer. {} Where a model reads places apart, effects of either sign "
            "cancel in GradCAM, which then shows little or another place. The plot of the section "
            "on attention shows both lifts, that of the second method the agreement with "
            "integrated gradients. {}"
        ).format(COARSE, UNCOVERED)
    )
    measured, reasons = measured_of(runs, "gradcam")
    yield from reasons
    for each in measured:
        yield Details(f"GradCAM: {each[0]}", tuple(_tables(*each)))
    yield How(
        "results[].gradcam",
        "GradCAM: Selvaraju et al. 2017. HiResCAM: Draelos and Carin 2020. Both by Captum, of the "
        "last block, towards the predicted class.",
    )


def _tables(name: str, measured: GradCamResult) -> Iterator[Block]:
    for method, each in (("GradCAM", measured.gradcam), ("HiResCAM", measured.hirescam)):
        yield Text(
            f"{method}: {each.documents} of {each.sampled_from} records, {percent(each.share)} of "
            "the map on personal data."
        )
        caption = f"{method} beside integrated gradients on the same records, {name}"
        yield token_lifts(caption, [each.lift, each.integrated_gradients], "Method")


CHAPTER = Chapter(
    name="gradcam",
    place=85,
    title="A third method: feature maps",
    body=body,
    asks=Question(
        "Do the feature maps behind the answers lie on personal data?",
        "GradCAM: the maps of the last convolutions, weighed by their gradients.",
        finding,
    ),
    figures=(
        Figure("gradcam.gradcam.lift.permuted.lift", "lift of GradCAM", higher_is_worse=True),
        Figure("gradcam.hirescam.lift.permuted.lift", "lift of HiResCAM", higher_is_worse=True),
    ),
)
