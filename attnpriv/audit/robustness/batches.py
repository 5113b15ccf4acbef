"""Embedded records as attacks take them, what of them may move, and when an answer is right.

Shapes: B batch, T positions, D model width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.modality import Embedded
from attnpriv.tasks import CLASSIFY

Answer = Callable[[Tensor, Tensor], Tensor]
"""Embeddings [B, T, D] and mask [B, T] to class logits [B, K]."""


@dataclass(frozen=True)
class Batch:
    """Embedded documents x [B, T, D], what may move [B, T, D], mask [B, T], labels [B]."""

    x: Tensor
    movable: Tensor
    mask: Tensor
    labels: Tensor

    def part(self, rows: Tensor) -> Batch:
        """The rows of a boolean [B], or those of the given numbers, which may repeat."""
        return Batch(self.x[rows], self.movable[rows], self.mask[rows], self.labels[rows])

    def repeated(self, times: int) -> Batch:
        """So many copies of one document."""
        return self.part(torch.zeros(times, dtype=torch.int64))


def make_batch(example: Embedded, labels: Tensor) -> Batch:
    """Embedded examples with their labels [B]; what stands for their content may move."""
    movable = example.content[:, :, None].expand_as(example.x).to(example.x.dtype)
    return Batch(example.x, movable, example.mask, labels)


@torch.no_grad()
def is_right(answer: Answer, x: Tensor, batch: Batch) -> Tensor:
    """Whether the answers to embeddings x in the place of the batch's own are its labels, [B]."""
    return CLASSIFY.correct(answer(x, batch.mask), batch.labels)


def coordinate_deviation(batches: Sequence[Batch]) -> float:
    """The standard deviation of all coordinates that may move; 0 where there are fewer than two."""
    values = torch.cat([batch.x[batch.movable > 0] for batch in batches])
    return float(values.std()) if len(values) > 1 else 0.0
