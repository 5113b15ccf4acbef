"""What is measured of a trained cell: utility, leakage, attention, the radius of an attack."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attnpriv.audit.attention import measure_attention
from attnpriv.audit.documents import Documents, prepare, sample
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.robustness.batches import Batch, coordinate_deviation, is_right, make_batch
from attnpriv.audit.robustness.captum_attacks import pgd
from attnpriv.audit.statistics import Floats, auc
from attnpriv.config import AttentionConfig
from attnpriv.data import Span
from attnpriv.data.text import Text
from attnpriv.models.text import TextClassifier
from attnpriv.sensitive import PresidioDetector
from benchmarks.hardening_frontier.cells import Cell
from benchmarks.hardening_frontier.regimes import Trained
from benchmarks.hardening_frontier.tasks import Task, load_task

MEMBERS = 1200  # training rows at most that the membership test predicts
DOCUMENTS = 300  # held-out rows whose attention is measured
ATTACKED = 16
FEWEST_WITH_SENSITIVE = 10  # fewer documents with sensitive tokens say nothing about lift
PERMUTATIONS, RESAMPLES = 100, 1000
BISECTIONS = 5
FAR, STEEP = 1e3, 1e4  # beyond any margin of logits; lifts gradients well above Captum's threshold
SMALLEST, LARGEST = 0.0005, 1.0  # radii, in units of the coordinate deviation


def measure(cell: Cell, trained: Trained) -> dict[str, Any]:
    """The measures of a cell; those of attention for seed 0 without privacy only."""
    task = load_task(cell.dataset)
    train_rows, held_out_rows = task.split(cell.seed)
    held_out = trained.predict(held_out_rows)
    with_attention = cell.seed == 0 and not cell.private
    teacher = trained.teacher and task.score(held_out_rows, trained.teacher(held_out_rows))
    return {
        "metric": task.metric,
        "utility": task.score(held_out_rows, held_out),
        "teacher_utility": teacher,
        "membership_auc": _membership_auc(task, trained, train_rows, held_out_rows, held_out),
        "attention": _attention(cell, trained, task, held_out_rows) if with_attention else None,
    }


def _membership_auc(
    task: Task,
    trained: Trained,
    train_rows: list[int],
    held_out_rows: list[int],
    held_out: Floats,
) -> dict[str, float | None]:
    """The loss-threshold attack; held-out texts that were trained on elsewhere are no evidence."""
    members = [train_rows[i] for i in sample(len(train_rows), MEMBERS, 0)]
    known = {task.data.texts[row] for row in train_rows}
    new = [i for i, row in enumerate(held_out_rows) if task.data.texts[row] not in known]
    labels = task.data.labels
    area = auc(
        true_label_log_odds(trained.predict(members), [labels[row] for row in members]),
        true_label_log_odds(held_out[new], [labels[held_out_rows[i]] for i in new]),
    )
    return asdict(area)


def _attention(
    cell: Cell, trained: Trained, task: Task, held_out_rows: list[int]
) -> dict[str, Any]:
    rows = tuple(held_out_rows[i] for i in sample(len(held_out_rows), DOCUMENTS, 0))
    model = trained.model.requires_grad_(False)
    documents = prepare(
        Text(trained.tokenizer, model.config.max_length),
        task.data.subset(rows),
        _spans(task.name, rows),
    )
    return {
        **_where_attention_goes(model, documents, cell.point.attention),
        **_radii(model, documents, _to_attack(task, documents)),
    }


@lru_cache
def _spans(dataset: str, rows: tuple[int, ...]) -> tuple[tuple[Span, ...], ...]:
    data = load_task(dataset).data.subset(rows)
    if data.spans is not None:
        return data.spans
    detector = PresidioDetector()
    return tuple(detector.detect(text) for text in data.texts)


def _where_attention_goes(
    model: TextClassifier, documents: Documents, attention: AttentionConfig
) -> dict[str, Any]:
    statistics = measure_attention(model, documents, PERMUTATIONS, seed=0)
    result = statistics.result(attention, RESAMPLES, seed=0)
    found = result.documents_with_sensitive
    enough = found >= FEWEST_WITH_SENSITIVE
    row_lifts = [head.row_lift for head in result.heads if head.row_lift is not None]
    return {
        "lift": asdict(result.overall.lift) if enough else None,
        "no_lift_because": None if enough else f"{found} of {len(documents)} have sensitive tokens",
        "documents_with_sensitive": found,
        "largest_row_lift_of_a_head": max(row_lifts) if enough else None,
        "entropy": float(np.mean([head.normalised_entropy for head in result.heads])),
        "largest_weight": result.certificate.largest_weight,
        "certificate_holds": result.certificate.holds,
    }


@dataclass(frozen=True)
class _Target:
    """The model, with the true class put far behind.

    So the cross-entropy is the margin, scaled up (Carlini and Wagner 2017): its own gradient
    vanishes on confident documents.
    """

    model: TextClassifier
    labels: Tensor

    def logits(self, x: Tensor, mask: Tensor) -> Tensor:
        """The model's class logits of embeddings x [B, T, D], [B, K]."""
        return self.model.run(x, mask).outputs

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """What the attack sees of them."""
        behind = F.one_hot(self.labels, self.model.config.num_labels) * FAR
        return STEEP * (self.logits(x, mask) - behind)


def _to_attack(task: Task, documents: Documents) -> list[int]:
    """A sample of the documents; where one class is scored, of that class.

    The others, such as the legitimate messages beside spam, hold out against any radius: nothing
    makes them look like the rare class.
    """
    eligible = list(range(len(documents)))
    if task.scored_class is not None:
        label = task.data.label_names.index(task.scored_class)
        eligible = [d for d in eligible if documents.data.labels[d] == label]
    return [eligible[i] for i in sample(len(eligible), ATTACKED, 0)]


def _radii(model: TextClassifier, documents: Documents, chosen: list[int]) -> dict[str, Any]:
    """The median over correctly predicted documents of the least L∞ radius that breaks one."""
    labels = documents.data.labels
    batches = [make_batch(documents.embedded(model, d), torch.tensor([labels[d]])) for d in chosen]
    deviation = coordinate_deviation(batches)
    scales = torch.cat([_smallest_scales(model, batch, deviation) for batch in batches])
    median = float(scales.quantile(0.5)) if len(scales) else math.nan
    return {
        "radius": median if math.isfinite(median) else None,  # more than half stand the largest
        "coordinate_deviation": deviation,
        "attacked": len(chosen),
        "right": len(scales),
        "unbroken": int(scales.isinf().sum()),
    }


def _smallest_scales(model: TextClassifier, batch: Batch, deviation: float) -> Tensor:
    """For each document predicted right, by bisection; infinite where the largest does not do."""

    def answer(x: Tensor, mask: Tensor) -> Tensor:
        return model.run(x, mask).outputs

    right = is_right(answer, batch.x, batch)
    part = Batch(batch.x[right], batch.movable[right], batch.mask[right], batch.labels[right])
    grid = torch.logspace(math.log10(SMALLEST), math.log10(LARGEST), 2**BISECTIONS - 1)
    scales = torch.cat([grid, torch.tensor([math.inf])])
    low = torch.zeros(len(part.labels), dtype=torch.int64)  # nothing below ``low`` breaks it
    for step in reversed(range(BISECTIONS)) if len(low) else ():
        middle = low + 2**step - 1
        broken = _breaks(model, part, grid[middle] * deviation)
        low = torch.where(broken, low, middle + 1)
    return scales[low]


def _breaks(model: TextClassifier, batch: Batch, radii: Tensor) -> Tensor:
    target = _Target(model, batch.labels)
    with torch.no_grad():
        moved = pgd(target, batch, radii)
        return target.logits(moved, batch.mask).argmax(-1) != batch.labels
