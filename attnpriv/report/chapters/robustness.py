"""Accuracy under attacks on the embeddings, and the least radii that break answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.robustness import QUANTILES, SCALES
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Box,
    Controls,
    Grid,
    How,
    Plot,
    Row,
    Span,
    Table,
    Text,
    both,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import as_svg, canvas, errors, series_style, short
from attnpriv.report.findings import Finding, invalid
from attnpriv.report.formats import number, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.robustness.embedding import RobustnessResult

MIDDLE = SCALES[len(SCALES) // 2]
NAMES = {
    "fgsm": "FGSM",
    "pgd": "FGSM or PGD",
    "autopgd": "AutoPGD",
    "strongest": "the strongest attack",
    "l2": "the strongest attack in L2",
}


def finding(result: AuditResult) -> Finding:
    """How far accuracy falls at the largest radius."""
    attack = result.robustness
    if not attack.valid:
        return invalid("robustness", "Robustness test", attack.positive, attack.null)
    if not attack.least.documents:
        return Finding(
            "warn",
            "Nothing is answered rightly, so there is nothing to attack",
            f"None of the {attack.documents} attacked records is answered rightly even without "
            "attack.",
            "robustness",
            "Train the model until it answers rightly, then audit it again.",
        )
    last = attack.radii[-1]
    return Finding(
        "info",
        "Accuracy under attack on the embeddings",
        f"{share(attack.clean)} without attack, {share(last.strongest)} at the largest radius. "
        "Stronger attacks may lower it further: this is an upper limit, not a guarantee.",
        "robustness",
        "Where writers profit from a wrong answer, do not let the model decide alone.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Accuracy at each radius, and the controls of each run."""
    yield Text(
        Markup(
            "Each coordinate of each word’s embedding is moved by at most the radius, so as to "
            "change the answer. From left to right, each attack counts what those before it broke, "
            "at this radius or a smaller one. AutoPGD chooses its step sizes by itself. Where "
            "attention is clipped, it also follows the gradients of the model without the clip, "
            "since clipped logits can hide the way. L2 moves each word by at most a length, that "
            "of a move of all its coordinates by the radius. These are not edits of the text, and "
            "the accuracies are upper limits, not a certificate. {}"
        ).format(UNCOVERED)
    )
    first = runs[0].robustness
    yield Plot(
        _curves(runs),
        "Plot: accuracy under attack",
        f"Accuracy with 95 % intervals; PGD with {first.pgd_steps} steps, AutoPGD with at most "
        f"{first.autopgd_steps} from each of three starts. Where no attention is clipped, nothing "
        "is attacked without the clip.",
    )
    yield Table(
        "Accuracy under attack",
        (
            "Model",
            "Records",
            "Radius, deviations",
            "FGSM alone",
            "or PGD",
            "or AutoPGD",
            "or without the clip",
            "or L2",
        ),
        tuple(row for run in runs for row in _rows(run.name, run.robustness)),
    )
    yield Table(
        "The least radius that breaks a right answer, in deviations",
        ("Model", "Right answers", *(f"{share:.0%} broken by" for share in QUANTILES), "Unbroken"),
        tuple(_least(run.name, run.robustness) for run in runs),
    )
    yield Grid(tuple(Box(tuple(_controls(run.name, run.robustness))) for run in runs))
    yield How(
        "results[].robustness",
        "FGSM: Goodfellow et al. 2015; PGD: Madry et al. 2018; AutoPGD: Croce and Hein 2020, with "
        "cross-entropy and DLR, or the margin where there are two classes, for which DLR is not "
        f"defined. Intervals: Wilson. Seed {first.seed}.",
    )


def _rows(name: str, attack: RobustnessResult) -> Iterator[Row]:
    yield (
        name,
        f"{attack.documents} of {attack.sampled_from}",
        "0",
        Span(part(attack.clean), 5),
    )
    for at in attack.radii:
        yield (
            name,
            "",
            f"{at.scale:g}",
            part(at.fgsm),
            part(at.pgd),
            part(at.autopgd),
            part(at.strongest),
            part(at.l2),
        )


def _least(name: str, attack: RobustnessResult) -> Row:
    least = attack.least
    scales = (number(scale, 4) if scale else f"> {least.furthest:g}" for scale in least.scales)
    radii = tuple(scales) or ("",) * len(QUANTILES)
    return name, str(least.documents), *radii, str(least.unbroken)


def _controls(name: str, attack: RobustnessResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(attack.valid)
    yield Controls(both(attack.positive, attack.null))
    deviation = number(attack.coordinate_deviation)
    yield Text(f"One deviation of a coordinate is {deviation}.", "note")


def _curves(runs: Sequence[AuditResult]) -> Markup:
    """Accuracy against the radius of the attack."""
    with canvas(4.9, 3.9) as (figure, axes):
        for series, run in enumerate(runs):
            _draw(axes, series, run.name, run.robustness)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("radius (L∞), in standard deviations of a coordinate")
        axes.set_ylabel("accuracy")
        columns = 1 if len(runs) == 1 else 2
        figure.legend(loc="outside upper left", ncols=columns, fontsize=8)
        return as_svg(figure, "robustness", "Accuracy under attack", map(_fall, runs))


def _draw(axes: Axes, series: int, name: str, attack: RobustnessResult) -> None:
    scales = [0.0, *(at.scale for at in attack.radii)]
    for kind, estimates, line in (
        ("strongest", [attack.clean, *(at.strongest for at in attack.radii)], "-"),
        ("FGSM or PGD", [attack.clean, *(at.pgd for at in attack.radii)], ":"),
    ):
        axes.errorbar(
            scales,
            [e.value or 0.0 for e in estimates],
            yerr=errors(estimates) if line == "-" else None,
            linestyle=line,
            capsize=2.5,
            label=f"{short(name)}: {kind}",
            **series_style(series),
        )
    axes.set_xticks(scales, [f"{scale:g}" for scale in scales])


def _fall(run: AuditResult) -> str:
    clean, last = run.robustness.clean.value, run.robustness.radii[-1].strongest.value
    if clean is None or last is None:
        return run.name
    return f"{run.name}: accuracy from {clean:.2f} to {last:.2f}"


def _figures() -> Iterator[Figure]:
    yield Figure(
        "robustness.clean", "accuracy without attack", higher_is_worse=False, comparable=True
    )
    for scale in SCALES:
        for kind, name in NAMES.items():
            yield Figure(
                f"robustness.radii[{scale}].{kind}",
                f"accuracy under {name} at {scale:g} sd",
                higher_is_worse=False,
                main=kind == "strongest" and scale == MIDDLE,
                comparable=True,
            )


CHAPTER = Chapter(
    name="robustness",
    place=140,
    title="Accuracy under attack",
    body=body,
    asks=Question(
        "How easily is the model misled?",
        "Small moves of the words' embeddings that seek a wrong answer.",
        finding,
    ),
    figures=tuple(_figures()),
)
