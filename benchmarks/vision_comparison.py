"""No gates, gates of channels, gates of channels and positions, self-attention: on the same images.

Four models of one task, private or not, over seeds: accuracy, parameters, seconds of the processor,
how much of what explains an answer lies on sensitive regions, accuracy under attack, membership.
Every run has one audit, and what is in the work folder is not made again. Runs and reports are as
private as the images.

Not covered: other settings than these, which are the same for all models, and other images. A mean
over seeds has Student's interval; with one seed it is the audit's own, over records. Where the
interval of a model overlaps that of the network without gates, no difference was found, which does
not show that there is none; figures are not corrected for their number. What was trained in several
parts has the seconds of the last, or none; the first training of a process also loads libraries.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnpriv.audit.measures import AuditResult
from attnpriv.audit.results import NotRun
from attnpriv.audit.subject import AuditOptions
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.report.auditing import audit_into, finished, provenance_of
from attnpriv.report.chapters import FIGURES
from attnpriv.report.drawing import STAND_INS, Row, canvas, draw_forest, legend
from attnpriv.report.formats import interval
from attnpriv.runs.folder import Run, load_run
from attnpriv.study.effects import student_t
from attnpriv.training import has_begun, train
from benchmarks.variants import tell

MODELS = {"none": "cnn", "SE": "cnn-se", "CBAM": "cnn-cbam", "self-attention": "vit"}
DATA = ("digits:beside=1", "mnist5k")
EPSILONS = (None, 8.0, 3.0)
CLIP = 2.0
ACCURACY, PARAMETERS, SECONDS = "accuracy", "parameters", "seconds"
FOUND = {
    ACCURACY: "utility.accuracy",
    "attention lift": "attention.overall.lift",
    "gates lift": "spatial_gates.overall.permuted.lift",
    "IG lift": "attribution.lift.lift",
    "occlusion lift": "occlusion.lift.permuted.lift",
    "GradCAM lift": "gradcam.gradcam.lift.permuted.lift",
    "HiResCAM lift": "gradcam.hirescam.lift.permuted.lift",
    "swap excess": "counterfactual.overall.excess",
    "PGD accuracy": "robustness.radii[0.02].pgd",
    "accuracy, pixels ± 16": "pixel_attacks.linf[16].strongest",
    "accuracy, L2 0.5": "pixel_attacks.l2[0.5].strongest",
    "membership AUC": "membership.auc",
}
DRAWN = (ACCURACY, "IG lift", "PGD accuracy", "membership AUC")
# Of the report's page in a light room; a file by itself has no style sheet.
COLOURS = {
    "ink": "#1b2430",
    "soft": "#566170",
    "rule": "#dde3ea",
    "s0": "#0072b2",
    "s1": "#c24e00",
    "s2": "#00785a",
    "s3": "#a54a86",
}
# As many as the table needs; what it does not need is skipped or small.
SIZES = AuditOptions(
    documents=600,
    members=600,
    sensitivity_documents=1,
    full_sample_tokens=256,
    examples=4,
    skip=("flow", "conductance", "faithfulness"),
)


@dataclass(frozen=True)
class Cell:
    """One model on one data set under one ε, over its seeds.

    Attributes:
        data: the name of the data set.
        epsilon: None without privacy.
        model: one of ``MODELS``.
        figures: by name, one estimate or number a seed; None where a seed has none.
    """

    data: str
    epsilon: float | None
    model: str
    figures: dict[str, list[Any]]

    def mean(self, figure: str) -> Estimate:
        """Over the seeds, with its interval."""
        own = self.figures[figure]
        values = [getattr(each, "value", each) for each in own]
        if any(value is None for value in values):
            return UNDEFINED
        if len(values) > 1:
            return student_t(values)
        return own[0] if isinstance(own[0], Estimate) else Estimate(*values * 3)


def main() -> None:
    """Train, audit, and print a table; the plot goes into the work folder."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.vision_comparison")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and reports")
    parser.add_argument("--datasets", nargs="+", default=DATA, help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--trainable", default="all", help="(%(default)s)")
    parser.add_argument("--steps", type=int, help="of each training (the library's default)")
    parser.add_argument("--documents", type=int, default=SIZES.documents, help="(%(default)s)")
    options = parser.parse_args()
    cells = [*compare(options)]
    print(table(cells))
    plot(cells, options.work / "comparison.svg")
    plain = [asdict(cell) for cell in cells]
    sizes = asdict(SIZES) | {"documents": options.documents, "members": options.documents}
    print(json.dumps({"benchmark": "vision_comparison", "sizes": sizes, "cells": plain}))


def compare(options: argparse.Namespace) -> Iterator[Cell]:
    """Every cell of the table, trained and audited now or found."""
    for source in options.datasets:
        data = load_dataset(source)
        for epsilon in EPSILONS:
            for model in MODELS:
                measured = [
                    measure(options, data, source, epsilon, model, seed)
                    for seed in range(options.seeds)
                ]
                figures = {name: [own[name] for own in measured] for name in measured[0]}
                yield Cell(source, epsilon, model, figures)


def measure(
    options: argparse.Namespace,
    data: Dataset,
    source: str,
    epsilon: float | None,
    model: str,
    seed: int,
) -> dict[str, Any]:
    """The figures of one run."""
    name = f"{MODELS[model]}-{'plain' if epsilon is None else f'eps{epsilon:g}'}-{seed}"
    folder = options.work / source.replace(":", "-").replace(",", "-") / name
    run = trained(options, data, folder / name, MODELS[model], epsilon, seed)
    result = audited(options, data, folder / "audit", run, seed)
    found = {words: FIGURES[path].of(result) for words, path in FOUND.items()}
    return {
        PARAMETERS: sum(parameter.numel() for parameter in run.model.parameters()),
        SECONDS: seconds_of(folder),
        **{words: None if isinstance(each, NotRun) else each for words, each in found.items()},
    }


def trained(
    options: argparse.Namespace,
    data: Dataset,
    path: Path,
    encoder: str,
    epsilon: float | None,
    seed: int,
) -> Run:
    """A run, trained now or found; what its training took stands beside it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        started = time.process_time()
        train(
            data,
            path,
            encoder=encoder,
            attention=AttentionConfig(clip=CLIP),
            config=TrainConfig(trainable=options.trainable, steps=options.steps, seed=seed),
            privacy=None if epsilon is None else PrivacyConfig(epsilon),
            resume=has_begun(path),
        )
        seconds = {"seconds": round(time.process_time() - started, 1)}
        (path.parent / "seconds.json").write_text(json.dumps(seconds))
        tell(path)
    return load_run(path)


def seconds_of(folder: Path) -> float | None:
    """What a training took; None where it was interrupted before that was written."""
    path = folder / "seconds.json"
    return float(json.loads(path.read_text())["seconds"]) if path.exists() else None


def audited(
    options: argparse.Namespace, data: Dataset, folder: Path, run: Run, seed: int
) -> AuditResult:
    """The audit of a run, made now or found complete."""
    if report := finished(folder, provenance_of([run], data, ())):
        return report.results[0]
    documents = options.documents
    sizes = AuditOptions(
        **{**asdict(SIZES), "seed": seed, "documents": documents, "members": documents}
    )
    report = audit_into(folder, [run], data, None, sizes, resume=None).report
    tell(folder)
    return report.results[0]


def table(cells: Sequence[Cell]) -> str:
    """As Markdown; beside every figure whether it differs from that of the model without gates."""
    names = (ACCURACY, PARAMETERS, SECONDS, *(name for name in FOUND if name != ACCURACY))
    lines = [
        f"| data | ε | model | {' | '.join(names)} |",
        "| --- " * (len(names) + 3) + "|",
    ]
    for cell in cells:
        first = next(c for c in cells if (c.data, c.epsilon) == (cell.data, cell.epsilon))
        epsilon = "none" if cell.epsilon is None else f"{cell.epsilon:g}"
        texts = [_text(cell, first, name) for name in names]
        lines.append(f"| {cell.data} | {epsilon} | {cell.model} | {' | '.join(texts)} |")
    return "\n".join(lines)


def _text(cell: Cell, first: Cell, name: str) -> str:
    own, other = cell.mean(name), first.mean(name)
    if own.value is None:
        return "–"
    if name == PARAMETERS:
        return f"{own.value:,.0f}"
    text = interval(own, 3)
    if cell is not first and name != SECONDS and overlap(own, other):
        return f"{text}, no difference"
    return text


def overlap(a: Estimate, b: Estimate) -> bool:
    """Whether two intervals share a point; an undefined one shares none."""
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return False
    return a.low <= b.high and b.low <= a.high


def plot(cells: Sequence[Cell], path: Path) -> None:
    """Four figures of all cells, side by side."""
    with canvas(11, 1.2 + 0.22 * len(cells), 1, len(DRAWN)) as (figure, panels):
        for axes, name in zip(panels, DRAWN, strict=True):
            draw_forest(axes, [_row(cell, name) for cell in cells], None)
            axes.set_title(name)
            axes.tick_params(axis="y", labelleft=axes is panels[0])
        legend(figure, dict(enumerate(MODELS)))
        figure.savefig(path, metadata={"Date": None})
    svg = path.read_text(encoding="utf-8")
    for name, colour in COLOURS.items():
        svg = svg.replace(STAND_INS[name], colour)
    path.write_text(svg, encoding="utf-8")


def _row(cell: Cell, name: str) -> Row:
    epsilon = "plain" if cell.epsilon is None else f"ε = {cell.epsilon:g}"
    group = f"{cell.data.partition(':')[0]}, {epsilon}"
    return Row(group, [*MODELS].index(cell.model), cell.model, cell.mean(name))


if __name__ == "__main__":
    main()
