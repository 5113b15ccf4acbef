"""Train the shadow models of a run, or those that are left, and keep what they say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from torch import Tensor

from attnpriv.audit.leakage.shadow_folder import (
    Settings,
    read_settings,
    run_path,
    write_answers,
    write_settings,
)
from attnpriv.config import require_seed
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.jobs import Executor
from attnpriv.modality import Sample
from attnpriv.models.classifier import pooled_features
from attnpriv.replacing import replace_file
from attnpriv.runs.folder import CONFIG, WEIGHTS, Run, publish
from attnpriv.runs.packing import FolderOfRun
from attnpriv.shadow_answers import ANSWERS, RUNS, SETTINGS, answers_path
from attnpriv.shadows.elsewhere import Made, ShadowJob
from attnpriv.shadows.making import Shadows
from attnpriv.shadows.recipe import Recipe, recipe_of
from attnpriv.training.checkpoint import work_path
from attnpriv.training.features import FeatureFolder
from attnpriv.training.release import writing_is_possible
from attnpriv.work_folder import LOCK, check_same, hold_lock

FEWEST, MOST = 8, 9999
SCRATCH = ".unfinished"  # of other processes
GOES_ON = "--resume goes on with the shadow models, where there are any"
FEATURES, MODELS, STEPS = "features of the frozen encoder", "shadow models", "training"

Progress = Callable[[str, int, int], None]
"""Called with a stage's name, what is done and the total."""


def has_begun(out: Path) -> bool:
    """Whether there are shadow models to go on with."""
    return (out / SETTINGS).exists()


def train_shadows(
    run: Run,
    data: Dataset,
    out: Path,
    *,
    models: int = 64,
    seed: int = 0,
    encoder: str | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    executor: Executor | None = None,
    features: FeatureFolder | None = None,
) -> None:
    """Train models like a run, each on a random half of the data, for attacks on that run.

    Args:
        run: whose training is imitated; it is never one of its own shadows.
        data: what the run was trained on, training and held-out rows together.
        out: the folder to make; ``audit.leakage.shadow_folder`` says what it holds.
        models: how many, at least 8. Each gets about half of the distinct texts.
        seed: of the coins. The noise of private models has no seed.
        encoder: as in ``recipe.recipe_of``.
        resume: go on with the shadow models in ``out``.
        progress: told about features, models and steps.
        executor: other processes that each train a model at a time; None trains one after another
            here.
        features: where what a frozen encoder makes of the data is kept; None computes it.

    Raises:
        InputError: the run cannot be imitated, the data is not its own, there is too little space,
            ``out`` exists already, or, to resume, it holds no such shadow models.

    Claim: a private run's shadows spend at most its ε each, on their own halves. Not covered: all
    of them together, and the answers and bits beside them, which are covered by no ε: the folder is
    as private as the data. Whatever ends this early, a kill included, leaves finished models to go
    on with, and without an executor also the unfinished training.
    """
    report = progress or (lambda stage, done, total: None)
    settings = _settings(run, data, models, seed)
    recipe = recipe_of(run, encoder)
    with _open(out, settings, resume):
        missing = [n for n in range(models) if not answers_path(out, n).exists()]
        report(MODELS, models - len(missing), models)
        if missing:
            samples = run.modality.read(data.records)
            known = _features(recipe, data, samples, features, report)
            shadows = Shadows(recipe, data, samples, seed, known)
            made = (
                _here(shadows, missing, out, report)
                if executor is None
                else _elsewhere(executor, shadows, encoder, missing, out, report)
            )
            for done, _ in enumerate(made, models - len(missing) + 1):
                report(MODELS, done, models)


def _settings(run: Run, data: Dataset, models: int, seed: int) -> Settings:
    require_seed("seed", seed)
    if not FEWEST <= models <= MOST:
        raise InputError(f"expected models from {FEWEST} to {MOST}, got {models}")
    if run.card.data.fingerprint != data.fingerprint():
        raise InputError(
            f"expected the data that {run.name} was trained on, got {data.name}, which differs"
        )
    hashes = {name: run.hashes[name] for name in (CONFIG, WEIGHTS)}
    return Settings(run.name, hashes, data.fingerprint(), models, seed)


@contextmanager
def _open(out: Path, settings: Settings, resume: bool) -> Iterator[None]:
    """Make or reopen a folder of shadow models, for this process alone."""
    if resume and not has_begun(out):
        raise InputError(f"expected unfinished shadow models in {out}, there are none")
    if not resume and not _holds_nothing(out):
        raise InputError(
            f"expected a new folder of shadow models, {out} exists already: give another one, or "
            "go on with --resume"
        )
    with writing_is_possible(out, GOES_ON):
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        with hold_lock(out, f"shadow models in {out}"):
            if resume:
                check_same(out, asdict(read_settings(out)), asdict(settings))
            else:
                write_settings(out, settings)
            for name in (RUNS, ANSWERS):
                (out / name).mkdir(mode=0o700, exist_ok=True)
            yield
            (out / LOCK).unlink()


def _holds_nothing(out: Path) -> bool:
    """Whether a folder is not there yet, or holds what a kill before the settings leaves."""
    if not out.is_dir():
        return not os.path.lexists(out)
    return all(path.name == LOCK or path.name.startswith(".") for path in out.iterdir())


def _features(
    recipe: Recipe,
    data: Dataset,
    samples: Sequence[Sample],
    features: FeatureFolder | None,
    report: Progress,
) -> Tensor | None:
    if not recipe.encoder_is_frozen:
        return None
    model, modality = recipe.run.model, recipe.run.modality
    told = partial(report, FEATURES)
    if features is not None:
        return features.of(model, modality, data, told)
    return pooled_features(model, modality, samples, progress=told)


def _here(shadows: Shadows, missing: Sequence[int], out: Path, report: Progress) -> Iterator[int]:
    """Finish models one after another; yields each one's number."""
    for number in missing:
        path = run_path(out, number)
        if not path.exists():
            _require_space(shadows.recipe.run, out)
            shadows.train(number, path, partial(report, STEPS))
        shutil.rmtree(work_path(path), ignore_errors=True)  # left by a kill at the very end
        write_answers(out, number, *shadows.answers(number, path))
        yield number


def _elsewhere(
    executor: Executor,
    shadows: Shadows,
    encoder: str | None,
    missing: Sequence[int],
    out: Path,
    report: Progress,
) -> Iterator[int]:
    """Finish models in other processes, in any order; yields each one's number."""
    run = shadows.recipe.run
    done = dict.fromkeys(missing, 0)

    def note(number: int, step: int, steps: int) -> None:
        done[number] = step
        report(STEPS, sum(done.values()), steps * len(missing))

    scratch = out / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)  # left by a kill
    scratch.mkdir(mode=0o700)
    job = ShadowJob(
        FolderOfRun.of(run), encoder, shadows.data, shadows.seed, shadows.features, scratch
    )
    try:
        with executor.crew(job) as crew:
            for number, content in crew(missing, note):
                _require_space(run, out)
                _keep(Made.from_bytes(content), number, out)
                yield number
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _keep(made: Made, number: int, out: Path) -> None:
    path = run_path(out, number)
    staging = work_path(path)
    for left in (path, staging):  # of a training here that was interrupted
        shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    for name, content in made.files.items():
        replace_file(staging / name, content, mode=0o644)
    publish(staging, path)
    write_answers(out, number, made.log_odds, made.inside)


def _require_space(run: Run, out: Path) -> None:
    """Raise InputError where the disk has no room for another model."""
    needed = (run.path / WEIGHTS).stat().st_size
    if (free := shutil.disk_usage(out).free) < 2 * needed:
        raise InputError(
            f"expected {2 * needed:,} free bytes in {out} for the next shadow model, there are "
            f"{free:,}; {GOES_ON}"
        )
