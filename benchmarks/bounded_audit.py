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
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.audit.subject import AuditOptions
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.models.pretrained import MINILM, MINILM_BOUNDED, encoder_bound
from attnpriv.report.auditing import audit_into, finished, provenance_of
from attnpriv.report.chapters import FIGURES
from attnpriv.report.document import Report
from attnpriv.runs.folder import load_run
from attnpriv.sensitive import PresidioDetector
from attnpriv.training import train
from benchmarks.dp_utility import SEEDS
from benchmarks.hardening_frontier.tasks import load_task

EPSILON = 3.0
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


@dataclass(frozen=True)
class Variant:
    """One of the models.

    Attributes:
        name: as in the table.
        encoder: ``minilm`` or ``minilm-bounded``.
        clipped: whether ``minilm`` is clipped at the bound of the other.
        private: whether the head is trained under ε.
    """

    name: str
    encoder: str
    clipped: bool = False
    private: bool = False

    @property
    def attention(self) -> AttentionConfig | None:
        """What the encoder's attention is hardened to; None leaves it."""
        bound = encoder_bound(MINILM_BOUNDED)
        return bound.attention if self.clipped and bound else None


VARIANTS = (
    Variant("plain", MINILM),
    Variant("clipped", MINILM, clipped=True),
    Variant("bounded", MINILM_BOUNDED),
    Variant("private", MINILM, private=True),
    Variant("bounded and private", MINILM_BOUNDED, private=True),
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
        for row in table(dataset, options.work / dataset)
    ]
    print(json.dumps({"benchmark": "bounded_audit", "epsilon": EPSILON, "rows": rows}))


def table(dataset: str, folder: Path) -> list[dict[str, Any]]:
    """A row for each model: every figure's mean over the seeds, and its values."""
    task = load_task(dataset)
    reports = []
    for seed in SEEDS:
        made = [run_of(task.data, task.train_size, folder, each, seed) for each in VARIANTS]
        reports.append(report_of(task.data, made, folder / f"seed{seed}", seed))
    return [
        {"dataset": dataset, "model": variant.name, **figures_of(reports, number)}
        for number, variant in enumerate(VARIANTS)
    ]


def run_of(data: Dataset, train_size: float, folder: Path, variant: Variant, seed: int) -> Path:
    """The folder of a run, trained now or found."""
    path = folder / "runs" / f"{variant.name.replace(' ', '-')}-{seed}"
    if not path.exists():
        train(
            data,
            path,
            encoder=variant.encoder,
            attention=variant.attention,
            config=TrainConfig(trainable="head", seed=seed, train_size=train_size),
            privacy=PrivacyConfig(EPSILON) if variant.private else None,
        )
        print(path, file=sys.stderr, flush=True)
    return path


def report_of(data: Dataset, paths: list[Path], folder: Path, seed: int) -> Report:
    """The audit of one seed's runs, made now or found complete."""
    runs = [load_run(path) for path in paths]
    if report := finished(folder, provenance_of(runs, data)):
        return report
    detector = PresidioDetector() if data.spans is None else None
    sizes = replace(SIZES, seed=seed)
    report = audit_into(folder, runs, data, detector, sizes, resume=None).report
    print(folder, file=sys.stderr, flush=True)
    return report


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
