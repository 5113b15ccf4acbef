"""What one optimizer step is computed from: losses of micro-batches of training records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.data.tokenisation import Encoding
from attnpriv.models.text import TextClassifier, pad_batch, pooled_features

FEATURE_ROWS = 1024  # cached features are small: that many of them make one micro-batch

Loss = Callable[[nn.Module], Tensor]


class Records(Protocol):
    """Training records in the form in which the trained module takes them.

    Attributes:
        module: what is trained.
    """

    module: nn.Module

    def losses(self, batch: Tensor) -> Iterator[Loss]:
        """Cut a batch of row numbers into micro-batches: functions to the sum of their losses."""


class HeadRecords:
    """For training the head alone: the frozen encoder has run once, and never runs again."""

    def __init__(
        self, model: TextClassifier, encodings: Sequence[Encoding], labels: Tensor, pad_id: int
    ) -> None:
        self.module: nn.Module = model.head
        self._features = pooled_features(model, encodings, pad_id)
        self._labels = labels

    def losses(self, batch: Tensor) -> Iterator[Loss]:
        """As in ``Records``."""
        for rows in _pieces(batch, FEATURE_ROWS):
            yield _loss(self._labels[rows], self._features[rows])


class TextRecords:
    """For training encoder blocks: token ids, in micro-batches of similar length."""

    def __init__(
        self,
        model: TextClassifier,
        encodings: Sequence[Encoding],
        labels: Tensor,
        pad_id: int,
        micro_batch_size: int,
    ) -> None:
        self.module: nn.Module = model
        self._encodings = encodings
        self._lengths = torch.tensor([len(encoding.ids) for encoding in encodings])
        self._labels = labels
        self._pad_id = pad_id
        self._micro_batch_size = micro_batch_size

    def losses(self, batch: Tensor) -> Iterator[Loss]:
        """As in ``Records``."""
        by_length = batch[self._lengths[batch].argsort()]
        for rows in _pieces(by_length, self._micro_batch_size):
            inputs = pad_batch([self._encodings[row] for row in rows.tolist()], self._pad_id)
            yield _loss(self._labels[rows], *inputs)


def _pieces(batch: Tensor, size: int) -> Iterator[Tensor]:
    for start in range(0, len(batch), size):
        yield batch[start : start + size]


def _loss(labels: Tensor, *inputs: Tensor) -> Loss:
    return lambda module: F.cross_entropy(module(*inputs), labels, reduction="sum")
