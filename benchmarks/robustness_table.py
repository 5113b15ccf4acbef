"""How robust plain, bounded and private models are, attacked and certified, beside their accuracy.

For each seed a head is trained with the command line's defaults on ``minilm`` as it is and on
``minilm-bounded``, and under ε on both; and, for what can be proved, on ``words``, which reads
tokens one by one. All are attacked by the audit on the same rows. Needs the real data beside the
checkout. What is in the work folder is not made again; runs and reports are as private as the data.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnpriv.audit.measures import AuditResult
from attnpriv.audit.subject import AuditOptions
from attnpriv.estimates import Estimate
from attnpriv.models.pretrained import MINILM, MINILM_BOUNDED, WORDS
from attnpriv.report.chapters import FIGURES
from benchmarks.dp_utility import SEEDS
from benchmarks.hardening_frontier.tasks import load_task
from benchmarks.tables import Row, markdown, row_of
from benchmarks.variants import BOUNDED, PLAIN, Bench, Variant

EPSILON = 3.0
VARIANTS = (
    PLAIN,
    BOUNDED,
    Variant("private", MINILM, epsilon=EPSILON),
    Variant("bounded and private", MINILM_BOUNDED, epsilon=EPSILON),
    Variant("words", WORDS),
    Variant("words and private", WORDS, epsilon=EPSILON),
)
# What says nothing about robustness is skipped, or done on one record.
SKIPPED = (
    *("flow", "conductance", "faithfulness", "memorisation", "membership"),
    *("explanation_attacks", "inversion", "checklist"),
)
SIZES = AuditOptions(
    documents=400,
    members=8,
    ig_documents=1,
    ig_steps=1,
    sensitivity_documents=1,
    counterfactual_documents=1,
    pgd_documents=24,
    text_attack_documents=30,
    examples=0,
    skip=SKIPPED,
)
SHOWN = (
    "utility.accuracy",
    "robustness.radii[0.01].strongest",
    "robustness.radii[0.02].strongest",
    "robustness.radii[0.05].strongest",
    "text_attacks.curve[1].strongest",
    "text_attacks.curve[2].strongest",
    "text_attacks.curve[3].strongest",
    "text_attacks.curve[5].strongest",
)
Results = Mapping[str, Sequence[AuditResult]]
"""By model, one for each seed."""


def main() -> None:
    """Train, attack, print the table, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.robustness_table")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and reports")
    parser.add_argument("--dataset", default="sms", help="sms or tickets (%(default)s)")
    parser.add_argument("--plot", type=Path, help="draw the table into this file")
    options = parser.parse_args()
    bench = Bench(load_task(options.dataset), options.work / options.dataset)
    results = measure(bench)
    rows = [*table(results)]
    print(markdown(options.dataset, rows), end="\n\n")
    if options.plot:
        plot(results, options.plot)
    shutil.rmtree(bench.features.path, ignore_errors=True)
    sizes = {"epsilon": EPSILON, **asdict(SIZES)}
    print(json.dumps({"benchmark": "robustness_table", "sizes": sizes, "rows": rows}))


def measure(bench: Bench) -> Results:
    """Every model of every seed, attacked on the rows of the seed."""
    results: dict[str, list[AuditResult]] = {variant.name: [] for variant in VARIANTS}
    for seed in SEEDS:
        runs = [bench.run_of(variant, seed) for variant in VARIANTS]
        report = bench.report_of(runs, f"robustness-seed{seed}", replace(SIZES, seed=seed))
        for variant, result in zip(VARIANTS, report.results, strict=True):
            results[variant.name].append(result)
    return results


def table(results: Results) -> Iterator[Row]:
    """A row for each figure; the last ones are by edited tokens, and what is proved of them."""

    def row(words: str, read: Callable[[AuditResult], Any]) -> Row:
        return row_of(words, {name: [*map(read, own)] for name, own in results.items()})

    for figure in map(FIGURES.__getitem__, SHOWN):
        yield row(figure.words, figure.of)
    for number, edits in enumerate(token_edits(results)):
        yield row(
            f"accuracy, {edits} edited tokens", lambda each, n=number: tokens(each)[n].accuracy
        )
        yield row(
            f"certified, {edits} edited tokens", lambda each, n=number: tokens(each)[n].certified
        )


def tokens(result: AuditResult) -> Sequence[Any]:
    """Accuracy by edited tokens, beside what is proved."""
    return getattr(result.text_attacks, "tokens", ())


def token_edits(results: Results) -> list[int]:
    """The numbers of edited tokens."""
    return [at.edits for at in tokens(results[PLAIN.name][0])]


def plot(results: Results, path: Path) -> None:
    """Draw robustness against utility, with privacy as the shape; and attacks beside proofs."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "attnpriv"
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    models, proofs = figure.subplots(1, 2)
    _draw_models(models, results)
    _draw_proofs(proofs, results)
    figure.savefig(path, metadata={"Date": None})


def _draw_models(axes: Axes, results: Results) -> None:
    attacked = FIGURES["text_attacks.curve[1].strongest"]
    for number, variant in enumerate(VARIANTS):
        own = results[variant.name]
        x = [value_of(FIGURES["utility.accuracy"].of(each)) for each in own]
        y = [value_of(attacked.of(each)) for each in own]
        marker = "o" if variant.epsilon is None else "^"
        axes.plot(x, y, ".", color=f"C{number}", alpha=0.5)
        centre = (statistics.mean(x), statistics.mean(y))
        axes.plot(*centre, marker, color=f"C{number}", label=variant.name)
    axes.set_xlabel("accuracy")
    axes.set_ylabel("accuracy after one edited word")
    axes.set_title(f"Triangles: ε = {EPSILON:g}; dots: seeds")
    axes.legend(fontsize=8)


def _draw_proofs(axes: Axes, results: Results) -> None:
    for number, variant in enumerate(VARIANTS):
        own = [tokens(each) for each in results[variant.name]]
        for name, line in (("accuracy", "-"), ("certified", "--")):
            columns = [[getattr(at, name) for at in each] for each in zip(*own, strict=True)]
            if all(value is not None for column in columns for value in column):
                means = [statistics.mean(map(value_of, column)) for column in columns]
                label = f"{variant.name}, {'attacked' if line == '-' else 'proved'}"
                axes.plot(token_edits(results), means, line, color=f"C{number}", label=label)
    axes.set_xlabel("edited tokens")
    axes.set_ylabel("accuracy")
    axes.set_title("What attacks leave, and what is proved")
    axes.legend(fontsize=7)


def value_of(estimate: Estimate) -> float:
    """Its value; undefined only where nothing was attacked."""
    return float("nan") if estimate.value is None else estimate.value


if __name__ == "__main__":
    main()
