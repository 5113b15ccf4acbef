"""What privacy costs in accuracy: the whole ε curve, with hardened attention, on real data.

One cell is a data set, an encoder, its attention, what is trained of it, an ε and a seed, which
sets the split (where there is none), the draws and the noise. Cells are appended to a file of
results as they are measured, and are not measured again. Known seeds void ε for a model in use;
here they make figures repeatable.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from attnpriv.config import Precision, PrivacyConfig, TrainConfig
from attnpriv.guarantees import lift_bound
from attnpriv.models.classifier import pooled_features
from attnpriv.models.text import TextClassifier
from attnpriv.privacy import noise_multiplier_for
from attnpriv.randomness import StepKeys
from attnpriv.training.batches import Records
from attnpriv.training.loop import Schedule, Training, run
from attnpriv.training.plan import make_schedule
from attnpriv.training.preparation import (
    Classifier,
    build_classifier,
    make_optimizer,
    make_records,
    seeded,
)
from attnpriv.training.processes import Processes
from benchmarks.hardening_frontier.points import KEYS, SENSITIVE_KEYS, Point
from benchmarks.hardening_frontier.tasks import Task, load_task

DELTA = 1e-5
NAMES = ("dataset", "encoder", "attention", "trainable")
EPSILONS = (0.5, 1.0, 2.0, 3.0, 8.0, math.inf)
SEEDS = (0, 1, 2)
TARGETS = {("sms", 3.0): 0.93, ("sms", 1.0): 0.90, ("sst2", 3.0): 0.84}


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes:
        dataset: one of the tasks.
        encoder: ``minilm``, ``minilm-bounded``, or the name of the folder it was loaded from.
        attention: a point of the frontier of hardening, ``plain``, or a bounded encoder's ``own``.
        trainable: as the command has it.
        epsilon: the target; infinite without privacy.
        seed: see above.
    """

    dataset: str
    encoder: str
    attention: str
    trainable: str
    epsilon: float
    seed: int


def main() -> None:
    """Measure the cells that are missing, and print the table of means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("docs/dp_utility.jsonl"))
    parser.add_argument("--datasets", default="sms,sst2")
    parser.add_argument("--encoder", default="minilm", help="or a folder (%(default)s)")
    parser.add_argument(
        "--attentions",
        default="clamp:0.97:1,plain",
        help="points of the frontier, plain, or own, which a bounded encoder has (%(default)s)",
    )
    parser.add_argument("--trainable", default="head", help="(%(default)s)")
    parser.add_argument("--precision", default="float32", help="of other than heads (%(default)s)")
    parser.add_argument("--epsilons", default=",".join(map(str, EPSILONS)), help="(%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw the curves into this file")
    options = parser.parse_args()
    done = read(options.results)
    for dataset in options.datasets.split(","):
        for attention in options.attentions.split(","):
            for epsilon in map(float, options.epsilons.split(",")):
                for seed in SEEDS:
                    name = Path(options.encoder).name
                    cell = Cell(dataset, name, attention, options.trainable, epsilon, seed)
                    if cell not in done:
                        done[cell] = measure(cell, options.encoder, options.precision)
                        append(options.results, cell, done[cell])
    summary = summarise(done)
    if options.plot:
        plot(summary, options.plot)
    print(json.dumps({"benchmark": "dp_utility", "delta": DELTA, "rows": summary}))


def measure(cell: Cell, encoder: str, precision: Precision) -> dict[str, Any]:
    """Train what is to be trained with the command line's defaults, and score it."""
    started = time.monotonic()
    task = load_task(cell.dataset)
    config = TrainConfig(trainable=cell.trainable, seed=cell.seed, precision=precision)
    rows, held_out = task.split(cell.seed)
    with seeded(cell.seed):
        classifier = new_classifier(task, encoder, cell.attention)
        classifier.model.select_trainable(cell.trainable)
    schedule = make_schedule(config, len(rows))
    noise = 0.0
    if math.isfinite(cell.epsilon):
        noise = noise_multiplier_for(cell.epsilon, DELTA, schedule.sample_rate, schedule.steps)
    records = records_of(classifier, task, rows, config, encoder, cell)
    fit(classifier.model, records, config, schedule, cell.epsilon, noise)
    features = features_of(classifier, task, held_out, encoder, cell)
    with torch.no_grad():
        probabilities = classifier.model.head(features).softmax(-1).double().numpy()
    score = task.score(held_out, probabilities)
    print(f"{cell}: {score:.4f}", file=sys.stderr, flush=True)
    seconds = round(time.monotonic() - started, 1)
    hardening = classifier.model.config.attention
    return {
        "metric": task.metric,
        "score": score,
        "noise_multiplier": noise,
        "provable_lift": lift_bound(
            hardening.logit_bound, hardening.smallest_temperature, KEYS, SENSITIVE_KEYS
        ),
        "seconds": seconds,
    }


def records_of(
    classifier: Classifier,
    task: Task,
    rows: list[int],
    config: TrainConfig,
    encoder: str,
    cell: Cell,
) -> Records:
    """The training rows, as features where the head alone is trained."""
    labels = torch.tensor(task.data.labels)[rows]
    if cell.trainable == "head":
        features = all_features(cell.dataset, encoder, cell.attention)[rows]
        return make_records(classifier, [], labels, config, features)
    encodings = classifier.read(task.data.subset(rows))
    return make_records(classifier, encodings, labels, config)


def features_of(
    classifier: Classifier, task: Task, rows: list[int], encoder: str, cell: Cell
) -> Tensor:
    """What the head sees of the rows once all is trained."""
    if cell.trainable == "head":
        return all_features(cell.dataset, encoder, cell.attention)[rows]
    return classifier.features(classifier.read(task.data.subset(rows)))


def fit(
    model: TextClassifier,
    records: Records,
    config: TrainConfig,
    schedule: Schedule,
    epsilon: float,
    noise: float,
) -> None:
    """Train what is trainable of the model, with draws and noise from the configuration's seed.

    Args:
        model: its optimizer is the command line's.
        records: of that model.
        config: the recipe.
        schedule: its steps.
        epsilon: the target; infinite without privacy.
        noise: the noise multiplier.
    """
    training = Training(
        records,
        make_optimizer(model, config),
        schedule,
        config,
        privacy=PrivacyConfig(epsilon, DELTA) if math.isfinite(epsilon) else None,
        noise_multiplier=noise,
        keys=StepKeys.from_seed(config.seed),
        processes=Processes(),
    )
    run(training)
    training.finish()


def new_classifier(task: Task, encoder: str, attention: str) -> Classifier:
    """The encoder with a new head."""
    hardening = None if attention == "own" else Point.parse(attention).attention
    return build_classifier(encoder, hardening, "layers", False, len(task.data.label_names))


@lru_cache(maxsize=1)
def all_features(dataset: str, encoder: str, attention: str) -> Tensor:
    """What the head sees of every row: it depends on no seed and no label."""
    task = load_task(dataset)
    classifier = new_classifier(task, encoder, attention)
    encodings = classifier.read(task.data)
    return pooled_features(classifier.model, classifier.modality, encodings)


def read(path: Path) -> dict[Cell, dict[str, Any]]:
    """The cells that were measured before."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {
        Cell(
            *(r[name] for name in NAMES[:-1]),
            r.get("trainable", "head"),  # which older results do not say
            float(r["epsilon"]),
            r["seed"],
        ): r["result"]
        for r in rows
    }


def append(path: Path, cell: Cell, result: dict[str, Any]) -> None:
    """Keep a measured cell; JSON has no infinity, so ε is a string."""
    row = {**asdict(cell), "epsilon": str(cell.epsilon), "result": result}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def summarise(done: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, beside the target and the same without privacy."""
    groups: dict[tuple[str, str, str, str, float], list[dict[str, Any]]] = {}
    for cell, result in done.items():
        key = (cell.dataset, cell.encoder, cell.attention, cell.trainable, cell.epsilon)
        groups.setdefault(key, []).append(result)
    means = {key: statistics.mean(r["score"] for r in results) for key, results in groups.items()}
    rows = []
    for (dataset, encoder, attention, trainable, epsilon), results in groups.items():
        scores = [r["score"] for r in results]
        target = TARGETS.get((dataset, epsilon))
        without = means.get((dataset, encoder, attention, trainable, math.inf))
        mean = means[dataset, encoder, attention, trainable, epsilon]
        rows.append(
            {
                "dataset": dataset,
                "encoder": encoder,
                "attention": attention,
                "trainable": trainable,
                "epsilon": str(epsilon),
                "metric": results[0]["metric"],
                "mean": mean,
                "scores": scores,
                "ratio_to_not_private": mean / without if without else None,
                "target": target,
                "target_met": None if target is None else mean >= target,
            }
        )
    return rows


def plot(summary: list[dict[str, Any]], path: Path) -> None:
    """Draw score against ε, a panel for each data set; the end of the axis is ε = ∞."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "attnpriv"
    datasets = list(dict.fromkeys(row["dataset"] for row in summary))
    places = {str(epsilon): place for place, epsilon in enumerate(EPSILONS)}
    curves = sorted({tuple(row[name] for name in NAMES[1:]) for row in summary})
    figure = Figure(figsize=(4.6 * len(datasets), 4.2), layout="constrained")
    axes = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, dataset in zip(axes, datasets, strict=True):
        for number, curve in enumerate(curves):
            colour = f"C{number}"
            rows = [r for r in summary if tuple(r[name] for name in NAMES) == (dataset, *curve)]
            rows.sort(key=lambda row: places[row["epsilon"]])
            x = [places[row["epsilon"]] for row in rows]
            panel.plot(x, [row["mean"] for row in rows], color=colour, label=", ".join(curve))
            for place, row in zip(x, rows, strict=True):
                scores = row["scores"]
                panel.plot([place] * len(scores), scores, ".", color=colour, alpha=0.5)
        for (name, epsilon), target in TARGETS.items():
            if name == dataset:
                panel.plot(places[str(epsilon)], target, "_", color="black", markersize=16)
        panel.set_title(
            f"{dataset}: {next(r for r in summary if r['dataset'] == dataset)['metric']}"
        )
        panel.set_xticks(range(len(EPSILONS)), [f"{e:g}".replace("inf", "∞") for e in EPSILONS])
        panel.set_xlabel("ε at δ = 1e-5 (dots: seeds; bars: targets)")
        panel.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
