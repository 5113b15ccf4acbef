"""A study as JSON for programs, as Markdown for people, and as two tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from attnpriv.estimates import Estimate
from attnpriv.replacing import replace_file
from attnpriv.report.chapters import FIGURES
from attnpriv.report.markdown import escape
from attnpriv.report.summary import Row
from attnpriv.rounding import digits_up, round_up
from attnpriv.study.design import CELLS
from attnpriv.study.effects import CONTRASTS, Composition, Measured, StudyResult, Verdicts

JSON_NAME, MARKDOWN_NAME = "study.json", "study.md"
READABLE = 0o644

LIMITS = (
    "The intervals cover how the effects vary with the seed: the split of these data, the initial "
    "weights, the batches, the noise and the audited rows. They do not cover other data, nor other "
    "settings than these.",
    "They are Student's intervals on a few seeds: wide, and right only where the figures are near "
    "normal. They are not corrected for each other: of twenty, one misses.",
    "Hardening is the clip and the temperature together; privacy is clipped gradients, noise and "
    "Poisson batches of the same rate together, at learning rates that are the same for all cells.",
    "An attack that fails proves nothing. A hardened model is not differentially private by that.",
)


def write_study(result: StudyResult, out: Path) -> None:
    """Write ``study.json`` and ``study.md``, each complete or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    text = json.dumps(asdict(result), indent=2, ensure_ascii=False, allow_nan=False)
    replace_file(out / JSON_NAME, f"{text}\n".encode(), READABLE)
    replace_file(out / MARKDOWN_NAME, markdown(result).encode(), READABLE)


def means_table(result: StudyResult) -> tuple[Row, list[Row]]:
    """Column names, and one row of text a measure: mean over the seeds of each cell, or verdict."""
    rows = [("ε of the training, largest", *(_epsilon(result, cell.name) for cell in CELLS))]
    rows += [(m.name, *(_mean(m, cell.name) for cell in CELLS)) for m in result.measures]
    rows += [(v.name, *(_counts(v, cell.name) for cell in CELLS)) for v in result.verdicts]
    return ("", *(cell.name for cell in CELLS)), rows


def effects_table(result: StudyResult) -> tuple[Row, list[Row]]:
    """Column names, and one row of text a measure: the three effects with 95 % intervals."""
    rows = [(m.name, *(_interval(m.effects[name]) for name in CONTRASTS)) for m in result.measures]
    return ("", *CONTRASTS), rows


def cost(composition: Composition) -> str:
    """What all runs of a study reveal together, in words."""
    private = "No run is private."
    if composition.epsilon is not None and composition.delta is not None:
        epsilon, delta = round_up(composition.epsilon, 2), digits_up(composition.delta, 3)
        private = (
            f"The weights of the {composition.private_runs} private runs together are "
            f"({epsilon}, {delta})-differentially private by basic composition, a record counted "
            "in each of them; each card says what its ε does not cover."
        )
    return (
        f"{private} The {composition.runs_without_epsilon} other runs have no ε at all, nor have "
        "the figures here and in the audits, which are exact functions of the records: whoever "
        "gets any of these, nothing bounds what they learn about a record."
    )


def markdown(result: StudyResult) -> str:
    """The study on one page."""
    seeds = len(result.seeds)
    sections = [
        f"# Study: {escape(result.data)}, {seeds} seeds",
        f"Mean over the {seeds} seeds; each seed's four runs have one split, one set of initial "
        "weights and one schedule.",
        _table(*means_table(result)),
        f"Effects, the mean over {seeds} paired seeds with 95 % intervals (Student's t, "
        f"{seeds - 1} degrees of freedom). Hardening and privacy are averaged over the other; the "
        "interaction is what hardening does more with privacy than without.",
        _table(*effects_table(result)),
        _bullets("Not measured", _missing(result.measures)),
        _bullets("What it costs to publish", [cost(result.composition)]),
        _bullets("Limits", LIMITS),
        _bullets("Settings", _settings(result)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _epsilon(result: StudyResult, cell: str) -> str:
    runs = [run for run in result.runs if run.cell == cell]
    epsilons = [run.epsilon for run in runs if run.epsilon is not None]
    if not epsilons:
        return "none"
    return round_up(max(epsilons), 2) if all(run.private for run in runs) else "void: noise seed"


def _mean(measured: Measured, cell: str) -> str:
    mean = measured.means[cell]
    if mean is None:
        return "none"
    guaranteed = FIGURES[measured.path].kind == "guarantee"  # rounded up, unlike what was measured
    return round_up(mean, 3) if guaranteed else f"{mean:.3f}"


def _counts(of: Verdicts, cell: str) -> str:
    """Each verdict, with how many of the seeds came to it where they differ."""
    counts = Counter(of.verdicts[cell])
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} × {verdict}" for verdict, count in sorted(counts.items()))


def _interval(effect: Estimate) -> str:
    if effect.value is None:
        return "none"
    return f"{effect.value:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}]"


def _missing(measures: Iterable[Measured]) -> Iterator[str]:
    for measured in measures:
        for reason in sorted({missing.reason for missing in measured.missing}):
            runs = [missing.run for missing in measured.missing if missing.reason == reason]
            yield f"{escape(measured.name)}, since {escape(reason)}: {', '.join(map(escape, runs))}"


def _settings(result: StudyResult) -> Iterator[str]:
    for name, value in result.settings.items():
        yield f"{escape(name)}: {escape(str(value))}"


def _table(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, ("---",) * len(header), *(tuple(map(escape, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _bullets(title: str, items: Iterable[str]) -> str:
    lines = [f"- {item}" for item in items]
    return "\n".join([f"## {title}", "", *lines]) if lines else ""
