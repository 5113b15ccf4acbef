"""Which layers pass personal data on to the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import UNCOVERED, Block, Details, How, Text
from attnpriv.report.chapter import Chapter, Question
from attnpriv.report.findings import (
    NO_ACTION,
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    Finding,
    not_run,
    stands_out,
)
from attnpriv.report.formats import percent
from attnpriv.report.lifts import token_lifts
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from attnpriv.audit.conductance import ConductanceResult
    from attnpriv.audit.measures import AuditResult


def finding(result: AuditResult) -> Finding:
    """The layer that passes most of its conductance through personal data."""
    conductance = result.conductance
    if isinstance(conductance, NotRun):
        return not_run("conductance", "Conductance", conductance.not_run, NO_ACTION)
    measured = [
        (share, layer) for layer, share in enumerate(conductance.shares, 1) if share is not None
    ]
    if not measured:
        return not_run("conductance", "Conductance", NO_PERSONAL_DATA, OTHER_RECORDS)
    most, layer = max(measured)
    found = [each.name for each in conductance.layers if stands_out(each.permuted)]
    figure = (
        f"Most in layer {layer}: personal data carries {most:.1%} of what passes through its "
        "attention weights"
    )
    if found:
        return Finding(
            "warn",
            f"Personal data reaches the answer through {', '.join(found)}",
            f"{figure}: more than chance explains.",
            "conductance",
            "Read the swap test. These are the layers to harden or to train again.",
        )
    return Finding(
        "info",
        "No layer passes on more of personal data than of other words",
        f"{figure}.",
        "conductance",
        "No action from this result alone: it follows attention, not every path to the answer.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Shares and lifts of each run, layer by layer."""
    yield Text(
        Markup(
            "Conductance follows the answer through each layer’s attention weights: how much the "
            "answer depends on a weight, times how far the text moved it. {}"
        ).format(UNCOVERED)
    )
    measured, reasons = measured_of(runs, "conductance")
    yield from reasons
    for name, each in measured:
        yield Text(
            f"{name}: {each.documents} of {each.sampled_from} records. Share on personal data by "
            f"layer: {_shares(each)}."
        )
        caption = f"Conductance by layer, {name}"
        yield Details(caption, (token_lifts(caption, each.layers, "Layer"),))
    if measured:
        steps = measured[0][1].steps
        yield How("results[].conductance", f"Dhamdhere et al. 2018, {steps} steps on each path.")


def _shares(measured: ConductanceResult) -> str:
    pairs = zip(measured.layers, measured.shares, strict=True)
    return ", ".join(f"{layer.name} {percent(share)}" for layer, share in pairs)


CHAPTER = Chapter(
    name="conductance",
    place=70,
    title="Layers that pass personal data on",
    body=body,
    asks=Question(
        "Which layers pass personal data on to the answer?",
        "Conductance of the answer through each layer's attention weights.",
        finding,
    ),
)
