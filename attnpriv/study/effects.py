"""From the audits of all seeds to means and effects.

With ``y[h, p]`` a figure of the cell with (1) or without (0) hardening h and privacy p, each seed
has

- hardening: ``((y[1, 0] - y[0, 0]) + (y[1, 1] - y[0, 1])) / 2``, averaged over privacy;
- privacy: ``((y[0, 1] - y[0, 0]) + (y[1, 1] - y[1, 0])) / 2``, averaged over hardening;
- interaction: ``(y[1, 1] - y[0, 1]) - (y[1, 0] - y[0, 0])``, what hardening does more with privacy
  than without.

The effect is the mean over the seeds. Its 95 % interval is Student's, with one degree of freedom
less than there are seeds: ``mean ± t(0.975) · s / √seeds``.

What the interval covers: how the effect varies with the seed, which is the split of these data, the
initial weights, the batches, the noise and the rows that were audited. Condition: the effects of
single seeds are near normal, which three or five of them cannot show.

What it does not cover: other data (the splits share most of their rows, so that no interval here
says how much another sample of records would change), other settings than the study's, and that
many intervals are looked at together: one in twenty misses. Three seeds give wide intervals: t is
4.3. Where the seeds agree exactly, the interval has width 0, which is no certainty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from attnpriv.audit.robustness.embedding import SCALES
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.report.gates.lookup import find
from attnpriv.study.design import CELLS

SCHEMA_VERSION = 1
# Of the figures of one seed, in the order of CELLS.
CONTRASTS = {
    "hardening": (-0.5, 0.5, -0.5, 0.5),
    "privacy": (-0.5, -0.5, 0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}
MIDDLE_RADIUS = SCALES[len(SCALES) // 2]

Json = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A figure of every run: its name, and where a result in ``audit.json`` has it."""

    name: str
    path: str
    subset: dict[str, str | float] = field(default_factory=dict)


MEASURES = (
    Measure("accuracy", "utility.accuracy"),
    Measure("macro F1", "utility.macro_f1"),
    Measure("attention lift on personal data", "attention.overall.lift"),
    Measure("the same against matched words", "attention.matched.lift"),
    Measure("integrated gradients, lift on personal data", "attribution.lift.lift"),
    Measure("largest attention weight", "attention.certificate.largest_weight"),
    Measure("its certified bound", "attention.certificate.largest_weight_bound"),
    Measure("change when personal data is swapped", "counterfactual.overall.swap.change"),
    Measure("memorised entities, log-odds", "memorisation.difference"),
    Measure("membership AUC", "membership.auc"),
    Measure(
        f"accuracy under PGD at {MIDDLE_RADIUS:g} sd",
        "robustness.radii.strongest",
        {"scale": MIDDLE_RADIUS},
    ),
)


@dataclass(frozen=True)
class Missing:
    """A figure that a run does not have, and why."""

    run: str
    reason: str


@dataclass(frozen=True)
class Measured:
    """One measure over all runs.

    Attributes:
        name: of the measure.
        path: in a result of ``audit.json``.
        values: of each cell, one a seed.
        means: of each cell over its seeds; None where one of them is missing.
        effects: by the names of ``CONTRASTS``, each undefined where any value is missing.
        missing: which those are.
    """

    name: str
    path: str
    values: dict[str, tuple[float | None, ...]]
    means: dict[str, float | None]
    effects: dict[str, Estimate]
    missing: tuple[Missing, ...]


@dataclass(frozen=True)
class StudyRun:
    """One of the runs: its ε and δ as on its card, and whether the card calls it private."""

    run: str
    cell: str
    seed: int
    epsilon: float | None
    delta: float | None
    private: bool


@dataclass(frozen=True)
class Composition:
    """What all runs together cost a record, by basic composition.

    Basic composition: the ε and the δ of releases add up (Dwork and Roth 2014, theorem 3.16).

    Attributes:
        private_runs: how many there are.
        epsilon: sum over the private runs, as if a record were trained on in each; None where no
            run is private.
        delta: the same.
        runs_without_epsilon: how many there are. With any of them, or with the figures of this
            study, no ε holds for the whole.
    """

    private_runs: int
    epsilon: float | None
    delta: float | None
    runs_without_epsilon: int


@dataclass(frozen=True)
class StudyResult:
    """All that ``study.json`` holds.

    Attributes:
        data: what it is called.
        settings: what was trained and measured, by name.
        seeds: of the runs.
        runs: all of them.
        composition: what they cost together.
        measures: means and effects.
        schema_version: of this layout.
    """

    data: str
    settings: Json
    seeds: tuple[int, ...]
    runs: tuple[StudyRun, ...]
    composition: Composition
    measures: tuple[Measured, ...]
    schema_version: int = SCHEMA_VERSION


def summarise(data: str, settings: Json, reports: Sequence[Json]) -> StudyResult:
    """The study behind one report a seed, each with the results of ``CELLS`` in their order."""
    runs = tuple(
        StudyRun(
            result["name"],
            cell.name,
            seed,
            result["card"]["epsilon"],
            result["card"]["delta"],
            result["card"]["private"],
        )
        for seed, report in enumerate(reports)
        for cell, result in zip(CELLS, report["results"], strict=True)
    )
    return StudyResult(
        data=data,
        settings=settings,
        seeds=tuple(range(len(reports))),
        runs=runs,
        composition=compose(runs),
        measures=tuple(_measure(measure, reports) for measure in MEASURES),
    )


def compose(runs: Sequence[StudyRun]) -> Composition:
    """Add up what the private runs cost, and count the others."""
    private = [run for run in runs if run.private]
    return Composition(
        private_runs=len(private),
        epsilon=_sum(run.epsilon for run in private),
        delta=_sum(run.delta for run in private),
        runs_without_epsilon=len(runs) - len(private),
    )


def _sum(bounds: Iterable[float | None]) -> float | None:
    """The sum of the numbers as they are printed; None of none."""
    exact = [Decimal(repr(bound)) for bound in bounds if bound is not None]
    return float(sum(exact)) if exact else None


def _measure(measure: Measure, reports: Sequence[Json]) -> Measured:
    missing: list[Missing] = []
    table = [
        [_value(result, measure, missing) for result in report["results"]] for report in reports
    ]
    values = {cell.name: tuple(row[c] for row in table) for c, cell in enumerate(CELLS)}
    return Measured(
        name=measure.name,
        path=measure.path,
        values=values,
        means={cell: _mean(of_seeds) for cell, of_seeds in values.items()},
        effects={
            name: UNDEFINED if missing else student_t(np.array(table) @ weights)
            for name, weights in CONTRASTS.items()
        },
        missing=tuple(missing),
    )


def _value(result: Json, measure: Measure, missing: list[Missing]) -> float | None:
    """A run's figure; None, with the reason added to ``missing``, where it is no result."""
    part = measure.path.partition(".")[0]
    value, reason = None, "there is none"
    if "not_run" in result[part]:
        reason = result[part]["not_run"]
    elif not result[part].get("valid", True):
        reason = "a control failed"
    else:
        found = find(result, measure.path, measure.subset)[0].value
        value = found["value"] if isinstance(found, dict) else found
    if value is None:
        missing.append(Missing(result["name"], reason))
    return value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def student_t(values: ArrayLike) -> Estimate:
    """The mean of at least two values with its 95 % interval by Student's t."""
    sample = np.asarray(values, dtype=np.float64)
    mean, n = float(sample.mean()), len(sample)
    half = float(t.ppf(0.975, n - 1) * sample.std(ddof=1) / math.sqrt(n))
    return Estimate(mean, mean - half, mean + half)
