"""What a bound on attention buys besides its certificate: five models audited side by side.

For each data set and seed a head is trained with the command line's defaults on ``minilm`` as it
is, on ``minilm`` clipped at the bound of ``minilm-bounded``, on ``minilm-bounded``, and, under ε,
on the first and the last of these. They are audited on the same rows. Of the audit only what the
table shows is measured at length. Runs and reports are kept in the work folder, and what is there
is not made again. They are as private as the data.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnpriv.audit.subject import AuditOptions
from attnpriv.models.pretrained import MINILM, MINILM_BOUNDED
from attnpriv.report.chapters import FIGURES
from attnpriv.report.document import Report
from benchmarks.dp_utility import SEEDS
from benchmarks.hardening_frontier.tasks import load_task
from benchmarks.variants import BOUNDED, CLIPPED, PLAIN, Bench, Variant

# As many as the table needs; of the other measures, one document each.
SIZES = AuditOptions(
    documents=300,
    members=300,
    ig_documents=1,
    ig_steps=1,
    faithfulness_documents=1,
    sensitivity_documents=1,
    counterfactual_documents=1,
    memorisation_documents=1,
    pgd_documents=40,
    text_attack_documents=1,
    examples=0,
)

SHOWN = (
    "utility.accuracy",
    "utility.macro_f1",
    "attention.certificate.largest_weight",
    "attention.certificate.largest_weight_bound",
    "attention.overall.lift",
    "attention.matched.lift",
    "membership.auc",
    "membership.judgement.verdict",
    "robustness.radii[0.02].strongest",
)


EPSILON = 3.0
VARIANTS = (
    PLAIN,
    CLIPPED,
    BOUNDED,
    Variant("private", MINILM, epsilon=EPSILON),
    Variant("bounded and private", MINILM_BOUNDED, epsilon=EPSILON),
)


def main() -> None:
    """Train, audit and print the means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.bounded_audit")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and reports")
    parser.add_argument("--datasets", default="sms,tickets", help="(%(default)s)")
    options = parser.parse_args()
    rows = [
        row
        for dataset in options.datasets.split(",")
        for row in table(Bench(load_task(dataset), options.work / dataset))
    ]
    print(json.dumps({"benchmark": "bounded_audit", "epsilon": EPSILON, "rows": rows}))


def table(bench: Bench) -> list[dict[str, Any]]:
    """A row for each model: every figure's mean over the seeds, and its values."""
    reports = [
        bench.report_of(
            [bench.run_of(each, seed) for each in VARIANTS],
            f"seed{seed}",
            replace(SIZES, seed=seed),
        )
        for seed in SEEDS
    ]
    return [
        {"dataset": bench.task.name, "model": variant.name, **figures_of(reports, number)}
        for number, variant in enumerate(VARIANTS)
    ]


def figures_of(reports: list[Report], number: int) -> dict[str, Any]:
    """The figures of one model, each with its mean and its value for each seed."""
    found = {}
    for figure in map(FIGURES.__getitem__, SHOWN):
        values = [figure.of(report.results[number]) for report in reports]
        if figure.kind == "verdict":
            found[figure.path] = {"values": [str(value) for value in values]}
            continue
        numbers = [getattr(value, "value", value) for value in values]
        known = all(isinstance(each, float | int) for each in numbers)
        found[figure.path] = {
            "mean": statistics.mean(numbers) if known else None,
            "values": numbers if known else [str(each) for each in numbers],
        }
    return found


if __name__ == "__main__":
    main()
