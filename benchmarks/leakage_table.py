"""What leaks, and what keeps it in: every leakage measure on five models, with the claim beside it.

For each data set and seed a head is trained with the command line's defaults on ``minilm`` as it
is, on ``minilm-bounded``, under two ε on the first, and under the smaller on the second. Each has
shadow models of its own, and a twin that is trained with canaries. What is measured is kept in the
work folder, and is not measured again. The features of the encoders are deleted at the end; runs,
shadows and reports stay, and are as private as the data. A shadow model takes 90 MB: 32 of each
model and three seeds take 43 GB for a data set.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.audit.leakage.canaries import CanariesResult, attacks_on, measure_canaries
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.shadow_folder import ShadowModels, read_shadows
from attnpriv.audit.measures import AuditResult
from attnpriv.audit.subject import AuditOptions
from attnpriv.models.pretrained import MINILM, MINILM_BOUNDED
from attnpriv.report.chapters import FIGURES
from attnpriv.runs.canaries import read_canaries
from attnpriv.runs.folder import Run
from attnpriv.shadows import has_begun, train_shadows
from benchmarks.dp_utility import SEEDS
from benchmarks.hardening_frontier.tasks import load_task
from benchmarks.tables import Row, markdown, row_of
from benchmarks.variants import BOUNDED, PLAIN, Bench, Variant, tell

VARIANTS = (
    PLAIN,
    BOUNDED,
    Variant("ε = 8", MINILM, epsilon=8.0),
    Variant("ε = 3", MINILM, epsilon=3.0),
    Variant("ε = 3 and bounded", MINILM_BOUNDED, epsilon=3.0),
)
CANARIES = 1000
# What says nothing about leakage is skipped, or done on one record.
SKIPPED = ("flow", "conductance", "faithfulness", "text_attacks", "checklist")
RECORDS = {
    "documents": (600, "held-out records, and as many that were trained on"),
    "memorisation": (60, "of each, those whose personal data is swapped"),
    "explanation": (120, "of each, those whose explanations are attacked"),
    "inversion": (60, "records that are read from what the model makes of them"),
}
SHOWN = (
    "utility.accuracy",
    "membership.auc",
    "membership.judgement.allowed",
    "membership.judgement.verdict",
    "shadow_attacks.lira.auc",
    "shadow_attacks.rmia.auc",
    "shadow_attacks.judgement.verdict",
    "explanation_attacks.attention.auc",
    "explanation_attacks.attributions.auc",
    "explanation_attacks.together.above_loss",
    "explanation_attacks.judgement.verdict",
    "memorisation.difference",
    "memorisation.judgement.verdict",
    "inversion.pooled.top10_gain",
    "inversion.attention.top10_gain",
    "inversion.attributions.top10_gain",
    "inversion.gradients.top10_gain",
    "inversion.judgement.verdict",
)


@dataclass(frozen=True)
class Measured:
    """One model of one seed.

    Attributes:
        audit: of the model.
        canaries: of its twin.
    """

    audit: AuditResult
    canaries: CanariesResult


def main() -> None:
    """Train, attack, and print a table for each data set."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.leakage_table")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs and reports")
    parser.add_argument("--datasets", default="sms,tickets", help="(%(default)s)")
    parser.add_argument("--shadows", type=int, default=32, help="of each model (%(default)s)")
    for name, (records, words) in RECORDS.items():
        help_of = f"{words} (%(default)s)"
        parser.add_argument(f"--{name}", type=int, default=records, help=help_of)
    options = parser.parse_args()
    sizes = AuditOptions(
        **{f"{name}_documents": getattr(options, name) for name in RECORDS if name != "documents"},
        documents=options.documents,
        members=options.documents,
        ig_documents=1,
        ig_steps=1,
        sensitivity_documents=1,
        counterfactual_documents=1,
        pgd_documents=1,
        examples=0,
        skip=SKIPPED,
    )
    rows = {}
    for name in options.datasets.split(","):
        bench = Bench(load_task(name), options.work / name)
        rows[name] = [*table(bench, sizes, options.shadows)]
        print(markdown(name, rows[name]), end="\n\n")
        shutil.rmtree(bench.features.path, ignore_errors=True)
    about = {"shadows": options.shadows, "canaries": CANARIES, **asdict(sizes)}
    print(json.dumps({"benchmark": "leakage_table", "sizes": about, "rows": rows}))


def table(bench: Bench, sizes: AuditOptions, shadows: int) -> Iterator[Row]:
    """A row for each figure, with what each model has."""
    seeds = [measure(bench, replace(sizes, seed=seed), shadows) for seed in SEEDS]
    models = {
        variant.name: [measured[number] for measured in seeds]
        for number, variant in enumerate(VARIANTS)
    }

    def row(words: str, read: Callable[[Measured], Any]) -> Row:
        return row_of(words, {name: [*map(read, own)] for name, own in models.items()})

    for figure in map(FIGURES.__getitem__, SHOWN):
        yield row(figure.words, lambda measured, figure=figure: figure.of(measured.audit))
    yield row("ε proved by canaries", lambda measured: measured.canaries.epsilon)
    yield row("verdict on canaries", lambda measured: measured.canaries.judgement.verdict)


def measure(bench: Bench, sizes: AuditOptions, count: int) -> list[Measured]:
    """The models of one seed, audited on the same rows, with so many shadow models each."""
    seed = sizes.seed
    runs = [bench.run_of(variant, seed) for variant in VARIANTS]
    shadows = [shadows_of(bench, run, count) for run in runs]
    report = bench.report_of(runs, f"seed{seed}", sizes, shadows)
    twins = [bench.run_of(variant, seed, CANARIES) for variant in VARIANTS]
    return [*map(Measured, report.results, [canaries_of(twin, seed) for twin in twins])]


def shadows_of(bench: Bench, run: Run, count: int) -> ShadowModels:
    """The shadow models of a run, trained now or found."""
    folder = bench.folder / "shadows" / run.name
    begun = has_begun(folder)
    train_shadows(run, bench.data, folder, models=count, resume=begun, features=bench.features)
    tell(folder)
    return read_shadows(folder)


def canaries_of(run: Run, seed: int) -> CanariesResult:
    """What the canaries of a run prove."""
    canaries = read_canaries(run)
    assert canaries is not None
    return measure_canaries(attacks_on(run, canaries), claim_of(run), seed)


if __name__ == "__main__":
    main()
