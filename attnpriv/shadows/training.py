"""Train the shadow models of a run, or those that are left, and keep what they say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.leakage.shadow_folder import (
    ANSWERS,
    RUNS,
    SETTINGS,
    Settings,
    answers_path,
    read_settings,
    run_path,
    write_answers,
    write_settings,
)
from attnpriv.audit.statistics import Floats
from attnpriv.config import require_seed
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_rows
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.models.classifier import AttentionClassifier, pooled_features
from attnpriv.runs.folder import CONFIG, WEIGHTS, Run, load_run
from attnpriv.shadows.recipe import Recipe, recipe_of
from attnpriv.training import has_begun as training_has_begun
from attnpriv.training.checkpoint import work_path
from attnpriv.training.plan import Parts, Plan
from attnpriv.training.processes import Processes
from attnpriv.training.release import writing_is_possible
from attnpriv.training.train import Features, train_plan
from attnpriv.work_folder import LOCK, check_same, hold_lock

FEWEST, MOST = 8, 9999
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
        progress: told about features, models and the steps of each.

    Raises:
        InputError: the run cannot be imitated, the data is not its own, there is too little space,
            ``out`` exists already, or, to resume, it holds no such shadow models.

    Claim: a private run's shadows spend at most its ε each, on their own halves. Not covered: all
    of them together, and the answers and bits beside them, which are covered by no ε: the folder is
    as private as the data. Whatever ends this early, a kill included, leaves finished models and an
    unfinished training to go on with.
    """
    report = progress or (lambda stage, done, total: None)
    settings = _settings(run, data, models, seed)
    recipe = recipe_of(run, encoder)
    with _open(out, settings, resume):
        shadows = _Shadows(recipe, data, out, report)
        for number in range(models):
            report(MODELS, number, models)
            if not answers_path(out, number).exists():
                shadows.make(number, seed)
        report(MODELS, models, models)


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


@dataclass(frozen=True)
class _Shadows:
    """The shadow models of one folder.

    Attributes:
        recipe: how they are trained.
        data: all rows.
        out: the folder.
        report: told about progress.
    """

    recipe: Recipe
    data: Dataset
    out: Path
    report: Progress

    @cached_property
    def samples(self) -> list[Sample]:
        """What the model reads of all rows."""
        return [*self.recipe.run.modality.read(self.data.records)]

    @cached_property
    def features(self) -> Tensor:
        """What the head of a model with a frozen encoder sees of all rows: the same for all."""

        def told(done: int, total: int) -> None:
            self.report(FEATURES, done, total)

        run = self.recipe.run
        return pooled_features(run.model, run.modality, self.samples, progress=told)

    def make(self, number: int, seed: int) -> None:
        """Train a model, unless it is trained already, and write what it says."""
        parts, path = self.recipe.cut(self.data, seed, number), run_path(self.out, number)
        if not path.exists():
            _require_space(self.recipe.run, self.out)
            self._train(self.recipe.plan(parts), parts, path)
        shutil.rmtree(work_path(path), ignore_errors=True)  # left by a kill at the very end
        inside = np.zeros(len(self.data), dtype=np.bool_)
        inside[_rows(parts)[0]] = True
        write_answers(self.out, number, self._log_odds(load_run(path).model), inside)

    def _train(self, plan: Plan, parts: Parts, path: Path) -> None:
        rows, held_out = _rows(parts)
        features = None
        if self.recipe.encoder_is_frozen:
            features = Features(self.features[rows], self.features[held_out])
        train_plan(
            plan,
            path,
            [self.samples[row] for row in rows],
            Processes(),
            features=features,
            resume=training_has_begun(path),
            on_step=lambda step, steps, _: self.report(STEPS, step, steps),
        )

    @torch.no_grad()
    def _log_odds(self, model: AttentionClassifier) -> Floats:
        """A model's log-odds of the true label of every row."""
        if self.recipe.encoder_is_frozen:
            features = self.features
        else:
            features = pooled_features(model, self.recipe.run.modality, self.samples)
        logits = model.head(features).double().numpy()
        return true_label_log_odds(softmax(logits, axis=1), self.data.labels)


def _rows(parts: Parts) -> tuple[Sequence[int], Sequence[int]]:
    """The numbers of the rows to train on, and of the others."""
    return split_rows(parts.dataset.keys, parts.rule)


def _require_space(run: Run, out: Path) -> None:
    """Raise InputError where the disk has no room for another model."""
    needed = (run.path / WEIGHTS).stat().st_size
    if (free := shutil.disk_usage(out).free) < 2 * needed:
        raise InputError(
            f"expected {2 * needed:,} free bytes in {out} for the next shadow model, there are "
            f"{free:,}; {GOES_ON}"
        )
