"""A shadow model: how it is trained, and what it says of every record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from attnpriv.audit.leakage.likelihood import Bools
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.statistics import Floats
from attnpriv.data.records import Dataset
from attnpriv.data.splits import split_rows
from attnpriv.jobs import Told
from attnpriv.modality import Sample
from attnpriv.models.classifier import pooled_features
from attnpriv.runs.folder import load_run
from attnpriv.shadows.recipe import Recipe
from attnpriv.training import has_begun
from attnpriv.training.features import Features
from attnpriv.training.plan import Parts
from attnpriv.training.processes import Processes
from attnpriv.training.train import train_plan


@dataclass(frozen=True)
class Shadows:
    """The shadow models of a run, by number.

    Attributes:
        recipe: how they are trained.
        data: all rows.
        samples: what the models read of them.
        seed: of the coins.
        features: what the head of a model with a frozen encoder sees of all rows, the same for all;
            None where the encoder is trained.
    """

    recipe: Recipe
    data: Dataset
    samples: Sequence[Sample]
    seed: int
    features: Tensor | None

    def train(self, number: int, out: Path, told: Told) -> None:
        """Train a model and write its run folder, or go on with what was begun there."""
        parts = self._parts(number)
        rows = _rows(parts)
        features = None if self.features is None else Features.cut(self.features, rows)
        train_plan(
            self.recipe.plan(parts),
            out,
            [self.samples[row] for row in rows[0]],
            Processes(),
            features=features,
            resume=has_begun(out),
            on_step=lambda step, steps, _: told(step, steps),
        )

    @torch.no_grad()
    def answers(self, number: int, out: Path) -> tuple[Floats, Bools]:
        """The log-odds that a trained model gives every row's true label, and which rows it saw."""
        model = load_run(out).model
        features = self.features
        if features is None:
            features = pooled_features(model, self.recipe.run.modality, self.samples)
        logits = model.head(features).double().numpy()
        inside = np.zeros(len(self.data), dtype=np.bool_)
        inside[_rows(self._parts(number))[0]] = True
        return true_label_log_odds(softmax(logits, axis=1), self.data.labels), inside

    def _parts(self, number: int) -> Parts:
        return self.recipe.cut(self.data, self.seed, number)


def _rows(parts: Parts) -> tuple[Sequence[int], Sequence[int]]:
    """The numbers of the rows to train on, and of the others."""
    return split_rows(parts.dataset.keys, parts.rule)
