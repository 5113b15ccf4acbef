"""What a model's outputs are for: how wrong they are, whether they are right, what they answer.

Shapes: B batch, K classes.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor
from torch.nn import functional as F


class Task(Protocol):
    """What outputs mean: classification here, or ``attnpriv.detection``."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """How wrong each record's output is, [B], whatever stands in the other rows."""

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether each record's output is right, [B]."""

    def answer(self, outputs: Tensor) -> Tensor:
        """What users are told; of a classifier, class probabilities [B, K]."""


class Classification:
    """One of K classes for each record, from logits [B, K]."""

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of each record with its class number, [B]."""
        return F.cross_entropy(outputs, targets, reduction="none")

    def correct(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Whether the class of the largest logit, of equals the first, is the target, [B]."""
        return outputs.argmax(-1) == targets

    def answer(self, outputs: Tensor) -> Tensor:
        """Class probabilities [B, K]."""
        return outputs.softmax(-1)


CLASSIFY = Classification()
