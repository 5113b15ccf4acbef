"""Accuracy of models for images under attacks on their pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness import LENGTHS, LEVELS
from attnpriv.estimates import Estimate
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Box,
    Controls,
    Grid,
    How,
    Plot,
    Row,
    Table,
    Text,
    both,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import as_svg, canvas, errors, series_style, short
from attnpriv.report.findings import NO_ACTION, Finding, invalid, not_run
from attnpriv.report.formats import share
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.robustness.pixels import AccuracyAtRadius, PixelAttackResult

Norm = Literal["linf", "l2"]
NORMS: dict[Norm, str] = {"linf": "L∞, levels of 255", "l2": "L2, white is 1"}


def finding(result: AuditResult) -> Finding:
    """How far accuracy falls at a radius in the middle and at the largest."""
    attack = result.pixel_attacks
    if isinstance(attack, NotRun):
        return not_run("pixel_attacks", "Attacks on pixels", attack.not_run, NO_ACTION)
    if not attack.valid:
        return invalid("pixel_attacks", "Attacks on pixels", attack.positive, attack.null)
    middle, last = attack.linf[len(LEVELS) // 2], attack.linf[-1]
    return Finding(
        "info",
        "Accuracy under attack on the pixels",
        f"{share(attack.clean)} without attack, {share(middle.strongest)} where each pixel may "
        f"move by {middle.scale:g} levels of 255, {share(last.strongest)} by {last.scale:g}. "
        "Stronger attacks may lower it further: this is an upper limit, not a guarantee.",
        "pixel_attacks",
        "Where those who send images profit from a wrong answer, do not let the model decide "
        "alone.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Accuracy against the radius in both norms, and the controls of each run."""
    yield Text(
        Markup(
            "Pixels are moved so as to change the answer, each by at most so many levels of 255 "
            "(L∞), or all together by at most a length (L2), and stay between black and white. "
            "Where something is clipped, the gradients of the model without the clip are followed, "
            "too, since clipped numbers can hide the way. The accuracies are upper limits, not a "
            "certificate. No moved image is kept. {}"
        ).format(UNCOVERED)
    )
    attacks, reasons = measured_of(runs, "pixel_attacks")
    yield from reasons
    if attacks:
        yield from _of_attacks(attacks)


def _of_attacks(attacks: Sequence[tuple[str, PixelAttackResult]]) -> Iterator[Block]:
    first = attacks[0][1]
    yield Plot(
        _curves(attacks),
        "Plot: accuracy under attack on pixels",
        f"Accuracy with 95 % intervals under AutoPGD with at most {first.steps} steps from each of "
        "two starts.",
    )
    yield Table(
        "Accuracy under attack on pixels",
        ("Model", "Images", "Norm", "Radius", "AutoPGD", "or without the clip"),
        tuple(row for each in attacks for row in _rows(*each)),
    )
    yield Grid(tuple(Box(tuple(_controls(*each))) for each in attacks))
    yield How(
        "results[].pixel_attacks",
        "AutoPGD: Croce and Hein 2020, with cross-entropy and DLR, or the margin where there are "
        f"two classes. Intervals: Wilson. Seed {first.seed}.",
    )


def _rows(name: str, attack: PixelAttackResult) -> Iterator[Row]:
    images = f"{attack.documents} of {attack.sampled_from}"
    yield name, images, "", "0", part(attack.clean), part(attack.clean)
    for norm, words in NORMS.items():
        for at in _curve(attack, norm):
            yield name, "", words, f"{at.scale:g}", part(at.own), part(at.strongest)


def _curve(attack: PixelAttackResult, norm: Norm) -> tuple[AccuracyAtRadius, ...]:
    return attack.linf if norm == "linf" else attack.l2


def _controls(name: str, attack: PixelAttackResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(attack.valid)
    yield Controls(both(attack.positive, attack.null))


def _curves(attacks: Sequence[tuple[str, PixelAttackResult]]) -> Markup:
    """Accuracy against the radius, one panel a norm."""
    with canvas(7.4, 3.9) as (figure, axes):
        axes.remove()
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (norm, words) in zip(panels, NORMS.items(), strict=True):
            for series, (name, attack) in enumerate(attacks):
                _draw(axes, series, name, attack.clean, _curve(attack, norm))
            axes.set(ylim=(0, 1.02), xlabel=f"radius ({words})")
        panels[0].set_ylabel("accuracy")
        columns = 1 if len(attacks) == 1 else 2
        figure.legend(
            *panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=columns
        )
        falls = [_fall(*each) for each in attacks]
        return as_svg(figure, "pixel_attacks", "Accuracy under attack on pixels", falls)


def _draw(
    axes: Axes, series: int, name: str, clean: Estimate, curve: Sequence[AccuracyAtRadius]
) -> None:
    estimates = [clean, *(at.strongest for at in curve)]
    scales = [0.0, *(at.scale for at in curve)]
    axes.errorbar(
        scales,
        [each.value or 0.0 for each in estimates],
        yerr=errors(estimates),
        capsize=2.5,
        label=short(name),
        **series_style(series),
    )


def _fall(name: str, attack: PixelAttackResult) -> str:
    clean, last = attack.clean.value, attack.linf[-1].strongest.value
    if clean is None or last is None:
        return name
    return f"{name}: accuracy from {clean:.2f} to {last:.2f}"


def _figures() -> Iterator[Figure]:
    for norm, scales in (("linf", LEVELS), ("l2", LENGTHS)):
        for scale in scales:
            yield Figure(
                f"pixel_attacks.{norm}[{scale:g}].strongest",
                f"accuracy where {_moved(norm, scale)}",
                higher_is_worse=False,
            )


def _moved(norm: str, scale: float) -> str:
    if norm == "linf":
        return f"each pixel moves by {scale:g} of 255"
    return f"an image moves by {scale:g} (L2)"


CHAPTER = Chapter(
    name="pixel_attacks",
    place=143,
    title="Accuracy under attack on pixels",
    body=body,
    asks=Question(
        "How easily do moved pixels mislead the model?",
        "Small moves of the pixels of an image that seek a wrong answer.",
        finding,
    ),
    figures=tuple(_figures()),
)
