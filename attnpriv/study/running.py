"""Train and audit all runs of a study, or those that are left of it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.audit.subject import AuditOptions
from attnpriv.data import Dataset
from attnpriv.data.splits import split_rule
from attnpriv.errors import InputError
from attnpriv.jobs import Executor
from attnpriv.replacing import replace_file
from attnpriv.report.auditing import audit_into, finished, provenance_of
from attnpriv.report.document import Report
from attnpriv.runs.folder import Run, load_run
from attnpriv.sensitive import Detector
from attnpriv.study.design import CELLS, Cell, Design
from attnpriv.study.effects import StudyResult, summarise
from attnpriv.study.writing import write_study
from attnpriv.training import has_begun, train
from attnpriv.training.features import FeatureFolder
from attnpriv.training.preparation import Warn
from attnpriv.training.release import writing_is_possible
from attnpriv.work_folder import LOCK, check_same, hold_lock

Progress = Callable[[str, int, int], None]
SETTINGS, RUNS = "settings.json", "runs"
FEATURES = "features"  # private, and kept only until the study is complete
WHOLE = "runs and audits"  # the stage that counts those that are done
SECRET = "privacy noise_seed"  # whoever knows it can take the noise off


def run_study(
    data: Dataset,
    out: Path,
    design: Design,
    *,
    detector: Detector | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    warn: Warn | None = None,
    executor: Executor | None = None,
) -> StudyResult:
    """Train the four cells with every seed, audit each seed's four, and write what differs.

    Args:
        data: labelled texts; each seed splits them anew, for its four runs alike.
        out: the folder to make; see the package for what comes into it.
        design: what is trained and measured.
        detector: finds sensitive spans where the data has none.
        resume: go on with the study in ``out``. Runs and audits that are complete stay as they
            are; an audit by other code or on another machine is made again.
        progress: called with a stage's name, the number done and the total; of the stage ``WHOLE``
            after each run and each audit.
        warn: as in ``train``, for the first run alone: all have the same texts, split differently.
        executor: other processes that share the audits, as in ``audit_into``; the trainings, which
            take less, stay in this one.

    Raises:
        InputError: the data or the design cannot be used, ``out`` exists already, or, to resume, it
            is not this study's. Nothing is written then.

    Whatever ends it early, KeyboardInterrupt included, leaves the runs and audits that are
    complete, and an unfinished training or audit to go on with.

    Not covered: an ε for the study. Each private run has its own; the plain and the hardened runs
    have none, and neither have the figures of the audits.
    """
    if (processes := os.environ.get("WORLD_SIZE", "1")) != "1":
        raise InputError(f"expected a study in one process, got {processes} of them")
    report = progress or (lambda stage, done, total: None)
    with _open(out, data, design, resume) as settings:
        reports: list[Report] = []
        total = design.seeds * (len(CELLS) + 1)
        for seed in range(design.seeds):
            runs = []
            for cell in CELLS:
                told = warn if (seed, cell) == (0, CELLS[0]) else None
                runs.append(_train(data, out, design, cell, seed, report, told))
                report(WHOLE, len(reports) * (len(CELLS) + 1) + len(runs), total)
            inputs = _AuditInputs(data, detector, replace(design.audit, seed=seed))
            reports.append(_audit(inputs, runs, out / f"seed{seed}", report, executor))
            report(WHOLE, len(reports) * (len(CELLS) + 1), total)
        shown = {name: value for name, value in settings.items() if name != SECRET}
        result = summarise(data.name, shown, reports)
        write_study(result, out)
        shutil.rmtree(out / FEATURES, ignore_errors=True)
    return result


@contextmanager
def _open(out: Path, data: Dataset, design: Design, resume: bool) -> Iterator[dict[str, Any]]:
    """Make the folder of a study, or reopen it; what makes it this study."""
    path = out / SETTINGS
    if resume and not path.is_file():
        raise InputError(f"expected an unfinished study in {out}, there is none")
    if not resume and os.path.lexists(out):
        raise InputError(f"{out} exists already: give a new folder, or go on with --resume")
    settings = json.loads(json.dumps(design.identity(data)))
    if not resume:
        design.check_epsilon(data)
    with writing_is_possible(out, "--resume goes on with the study, where it has begun"):
        if not resume:
            out.mkdir(parents=True)
        with _alone(out):
            if resume:
                check_same(out, _read_settings(path), settings)
            else:
                (out / RUNS).mkdir()
                replace_file(path, f"{json.dumps(settings, indent=2)}\n".encode(), mode=0o600)
            yield settings


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    with hold_lock(out, f"study in {out}"):
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)  # a finished study is no place for it


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise InputError(f"{path} does not hold the settings of a study")
    return settings


def _train(
    data: Dataset,
    out: Path,
    design: Design,
    cell: Cell,
    seed: int,
    report: Progress,
    warn: Warn | None,
) -> Run:
    """A run, trained now or found complete."""
    path = out / RUNS / f"{cell.name}-seed{seed}"
    if not path.exists():
        train(
            data,
            path,
            encoder=design.encoder_of(cell),
            attention=design.attention_of(cell),
            config=design.config_of(seed),
            privacy=design.privacy_of(cell, seed),
            features=FeatureFolder(out / FEATURES),
            resume=has_begun(path),
            on_step=lambda step, steps, _: report(f"{path.name}: training", step, steps),
            warn=warn,
        )
    run = load_run(path)
    privacy = design.privacy_of(cell, seed)
    ours = {
        "data": data.fingerprint(),
        "split": split_rule(design.config.train_size, seed),
        "attention": asdict(design.attention_of(cell)),
        "epsilon": None if privacy is None else privacy.epsilon,
    }
    check_same(path, _identity(run), ours)
    return run


def _identity(run: Run) -> dict[str, Any]:
    """What a complete run can be told by; the settings of the study hold the rest."""
    data, privacy = run.card.data, run.card.privacy
    return {
        "data": data.fingerprint,
        "split": data.split,
        "attention": asdict(run.model.config.attention),
        "epsilon": None if privacy is None else privacy.target_epsilon,
    }


@dataclass(frozen=True)
class _AuditInputs:
    """What the audit of a seed reads beside its runs."""

    data: Dataset
    detector: Detector | None
    options: AuditOptions


def _audit(
    inputs: _AuditInputs,
    runs: list[Run],
    folder: Path,
    progress: Progress,
    executor: Executor | None,
) -> Report:
    """The report on a seed's runs, made now or found complete."""
    data, detector, options = inputs.data, inputs.detector, inputs.options
    if report := finished(folder, provenance_of(runs, data)):
        return report
    return audit_into(
        folder, runs, data, detector, options, progress, resume=None, executor=executor
    ).report
