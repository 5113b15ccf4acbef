"""What a bound on attention costs an encoder that was taught under it, and one that was not.

A head is trained on the frozen encoder with the command line's defaults, for each data set, ε and
seed. ``minilm`` is measured as it is and clipped at the bound of each bounded copy, and each copy
under its own. Cells are those of ``benchmarks.dp_utility``, in a file of their own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from attnpriv.models.pretrained import encoder_bound
from benchmarks.dp_utility import SEEDS, Cell, append, measure, read

COLOURS = {"plain": "black", "clipped": "tab:red", "bounded": "tab:blue"}


def main() -> None:
    """Measure the cells that are missing, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.bounded_encoders")
    parser.add_argument("--results", type=Path, default=Path("docs/bounded_encoders.jsonl"))
    parser.add_argument("--datasets", default="sms,sst2,tickets", help="(%(default)s)")
    parser.add_argument("--plain", default="minilm", help="or a folder (%(default)s)")
    parser.add_argument("--bounded", default="minilm-bounded", help="or folders (%(default)s)")
    parser.add_argument("--epsilons", default="1,3,inf", help="(%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw lift against score into this file")
    options = parser.parse_args()
    done = read(options.results)
    for dataset in options.datasets.split(","):
        for encoder, attention in points(options.plain, options.bounded.split(",")):
            for epsilon in map(float, options.epsilons.split(",")):
                for seed in SEEDS:
                    name = Path(encoder).name
                    cell = Cell(dataset, name, attention, "head", epsilon, seed)
                    if cell not in done:
                        done[cell] = measure(cell, encoder, "float32")
                        append(options.results, cell, done[cell])
    rows = summarise(done)
    if options.plot:
        plot(rows, options.plot)
    print(json.dumps({"benchmark": "bounded_encoders", "rows": rows}))


def points(plain: str, bounded: Sequence[str]) -> list[tuple[str, str]]:
    """Encoders with their attention: the plain one without and with a clip, each bounded one."""
    bounds = {name: encoder_bound(name) for name in bounded}
    clips = {
        f"{bound.attention.clip_mode}:{bound.attention.logit_bound:g}:{bound.attention.temperature:g}"
        for bound in bounds.values()
        if bound is not None
    }
    return [
        (plain, "plain"),
        *((plain, clip) for clip in sorted(clips)),
        *((name, "own") for name in bounds),
    ]


def summarise(done: dict[Cell, dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean over the seeds, and the difference in points to the plain encoder of the same seeds."""
    scores: dict[tuple[str, str, str, str], list[float]] = {}
    lifts: dict[tuple[str, str], float] = {}
    for cell, result in sorted(done.items(), key=lambda item: item[0].seed):
        key = (cell.dataset, cell.encoder, cell.attention, str(cell.epsilon))
        scores.setdefault(key, []).append(result["score"])
        lifts[cell.encoder, cell.attention] = result["provable_lift"]
    means = {key: statistics.mean(found) for key, found in scores.items()}
    plain = {(d, e): mean for (d, _, point, e), mean in means.items() if point == "plain"}
    return [
        {
            "dataset": dataset,
            "encoder": encoder,
            "attention": attention,
            "epsilon": epsilon,
            "provable_lift": lifts[encoder, attention],
            "mean": means[dataset, encoder, attention, epsilon],
            "scores": found,
            "points_to_plain": 100
            * (means[dataset, encoder, attention, epsilon] - plain[dataset, epsilon]),
        }
        for (dataset, encoder, attention, epsilon), found in scores.items()
    ]


def kind_of(row: dict[str, Any]) -> str:
    """Plain, clipped or bounded."""
    return {"plain": "plain", "own": "bounded"}.get(row["attention"], "clipped")


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw provable lift against score: a row for each ε, a column for each data set."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "attnpriv"
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    epsilons = list(dict.fromkeys(row["epsilon"] for row in rows))
    figure = Figure(figsize=(4 * len(datasets), 2.8 * len(epsilons)), layout="constrained")
    axes = figure.subplots(len(epsilons), len(datasets), squeeze=False, sharex=True, sharey="col")
    for line, epsilon in zip(axes, epsilons, strict=True):
        for panel, dataset in zip(line, datasets, strict=True):
            here = [r for r in rows if (r["dataset"], r["epsilon"]) == (dataset, epsilon)]
            for kind, colour in COLOURS.items():
                drawn = sorted(
                    (r["provable_lift"], r["mean"], r["scores"]) for r in here if kind_of(r) == kind
                )
                panel.plot(
                    [x for x, _, _ in drawn],
                    [y for _, y, _ in drawn],
                    "o-",
                    color=colour,
                    label=kind,
                )
                for x, _, scores in drawn:
                    panel.plot([x] * len(scores), scores, ".", color=colour, alpha=0.4)
            privacy = "without privacy" if epsilon == "inf" else f"ε = {float(epsilon):g}"
            panel.set_title(f"{dataset}, {privacy}", fontsize=10)
    axes[0][0].legend(fontsize=8)
    figure.supxlabel("provable lift of attention on 4 of 32 keys (8: nothing is proved)")
    figure.supylabel("F1 of spam on sms, accuracy elsewhere (small dots: seeds)")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
