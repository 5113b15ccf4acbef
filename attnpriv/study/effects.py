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
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from attnpriv.audit.results import NotRun
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.report.chapter import Figure
from attnpriv.report.chapters import MAIN
from attnpriv.report.document import Report
from attnpriv.study.design import CELLS

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

SCHEMA_VERSION = 1
# Of the figures of one seed, in the order of CELLS.
CONTRASTS = {
    "hardening": (-0.5, 0.5, -0.5, 0.5),
    "privacy": (-0.5, -0.5, 0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}

Json = dict[str, Any]


EPSILON = "card.epsilon"  # stands in a row of its own: it is no figure of the model's behaviour
MEASURES = tuple(f for f in MAIN if f.path != EPSILON and f.kind != "verdict")
VERDICTS = tuple(figure for figure in MAIN if figure.kind == "verdict")


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
class Verdicts:
    """The verdicts of one attack over all runs.

    Attributes:
        name: of the verdict.
        path: in a result of ``audit.json``.
        verdicts: of each cell, one a seed; ``not run`` where there is none.
    """

    name: str
    path: str
    verdicts: dict[str, tuple[str, ...]]


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
        verdicts: on attacks.
        schema_version: of this layout.
    """

    data: str
    settings: Json
    seeds: tuple[int, ...]
    runs: tuple[StudyRun, ...]
    composition: Composition
    measures: tuple[Measured, ...]
    verdicts: tuple[Verdicts, ...]
    schema_version: int = SCHEMA_VERSION


def summarise(data: str, settings: Json, reports: Sequence[Report]) -> StudyResult:
    """The study behind one report a seed, each with the results of ``CELLS`` in their order."""
    runs = tuple(
        StudyRun(
            result.name,
            cell.name,
            seed,
            result.card["epsilon"],
            result.card["delta"],
            result.card["private"],
        )
        for seed, report in enumerate(reports)
        for cell, result in zip(CELLS, report.results, strict=True)
    )
    return StudyResult(
        data=data,
        settings=settings,
        seeds=tuple(range(len(reports))),
        runs=runs,
        composition=compose(runs),
        measures=tuple(_measure(measure, reports) for measure in MEASURES),
        verdicts=tuple(_verdicts(figure, reports) for figure in VERDICTS),
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


def _measure(figure: Figure, reports: Sequence[Report]) -> Measured:
    missing: list[Missing] = []
    table = [[_number(result, figure, missing) for result in each.results] for each in reports]
    values = {cell.name: tuple(row[c] for row in table) for c, cell in enumerate(CELLS)}
    return Measured(
        name=figure.words,
        path=figure.path,
        values=values,
        means={cell: _mean(of_seeds) for cell, of_seeds in values.items()},
        effects={
            name: UNDEFINED if missing else student_t(np.array(table) @ weights)
            for name, weights in CONTRASTS.items()
        },
        missing=tuple(missing),
    )


def _verdicts(figure: Figure, reports: Sequence[Report]) -> Verdicts:
    cells = {
        cell.name: tuple(figure.text(each.results[c]) for each in reports)
        for c, cell in enumerate(CELLS)
    }
    return Verdicts(figure.words, figure.path, cells)


def _number(result: AuditResult, figure: Figure, missing: list[Missing]) -> float | None:
    """A run's figure; None, with the reason added to ``missing``, where it is no result."""
    found = figure.of(result)
    value: float | None = found.value if isinstance(found, Estimate) else found
    reason = "there is none"
    if isinstance(found, NotRun):
        value, reason = None, found.not_run
    elif not getattr(getattr(result, figure.part), "valid", True):
        value, reason = None, "a control failed"
    if value is None:
        missing.append(Missing(result.name, reason))
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
