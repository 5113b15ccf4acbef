"""What one optimizer step is computed from: losses of micro-batches of training records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from attnpriv.config import Precision
from attnpriv.modality import Modality, Sample
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.classifier import AttentionClassifier, batches_by_length
from attnpriv.tasks import CLASSIFY, Task
from attnpriv.training.processes import ALONE, Processes

FEATURE_ROWS = 1024  # cached features are small: that many of them make one micro-batch

Losses = Callable[[nn.Module], Tensor]


class Records(Protocol):
    """Training records in the form in which the trained module takes them.

    Attributes:
        module: what is trained.
        copies: how many rows of a batch make one record; see ``training.augmentation``.
    """

    module: nn.Module
    copies: int

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """Cut a batch of row numbers into micro-batches: functions to their losses, one each.

        Args:
            batch: the same for all processes.
            processes: those that share each micro-batch; what this one gets of it has no row where
                there are fewer rows than processes, and is then left out unless the model is
                sharded, since then all processes must compute together.
        """


class HeadRecords:
    """For training the head alone: the frozen encoder has run once, and never runs again.

    Args:
        head: what is trained.
        features: what it sees of N records, [N·K, F], as of ``models.classifier.pooled_features``.
        labels: their classes, [N].
        copies: K.
    """

    def __init__(self, head: nn.Module, features: Tensor, labels: Tensor, copies: int = 1) -> None:
        self.module = head
        self.copies = copies
        self._features = features
        self._labels = labels

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """As in ``Records``."""
        size = max(1, FEATURE_ROWS // self.copies)
        for records in processes.shares(torch.split(batch, size * processes.count)):
            rows = rows_of(records, self.copies)
            yield _losses(self._labels[records], self._features[rows], copies=self.copies)


class SampleRecords:
    """For training more than the head: samples, in micro-batches of similar length.

    Args:
        model: what is trained.
        modality: how the samples were read.
        samples: N·K of them.
        labels: their classes, [N].
        micro_batch_tokens: most positions in a micro-batch, padding included; a longer record makes
            one alone.
        precision: in which the forward pass computes.
        copies: K.
    """

    def __init__(
        self,
        model: AttentionClassifier,
        modality: Modality[Any, Any],
        samples: Sequence[Sample],
        labels: Tensor,
        micro_batch_tokens: int,
        precision: Precision = "float32",
        copies: int = 1,
    ) -> None:
        self.module: nn.Module = model
        self._task = model.task
        self.copies = copies
        self._modality = modality
        self._samples = samples
        self._lengths = _lengths(samples, copies)
        self._labels = labels
        self._micro_batch_tokens = micro_batch_tokens
        self._precision = precision

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """As in ``Records``."""
        for records, *inputs in self.micro_batches(batch, processes):
            labels, copies = self._labels[records], self.copies
            yield _losses(
                labels, *inputs, precision=self._precision, copies=copies, task=self._task
            )

    def micro_batches(
        self, batch: Tensor, processes: Processes = ALONE
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Numbers of records [B], values [B·K, T, ...] and mask [B·K, T] of each micro-batch.

        A share without records has the values of some row all the same; see ``_losses``.
        """
        for records in _by_length(batch, self._lengths, self._micro_batch_tokens, processes):
            rows = _rows_or_any(records, self.copies).tolist()
            inputs = self._modality.collate([self._samples[row] for row in rows])
            yield records, inputs.values, inputs.mask


class UpperRecords:
    """For training the last blocks: the frozen ones below have run once, and never run again.

    Args:
        model: what is trained.
        start: how many of its layers are frozen.
        modality: how the samples were read.
        samples: N·K of them.
        labels: their classes, [N].
        micro_batch_tokens: as in ``SampleRecords``.
        precision: as in ``SampleRecords``.
        copies: K.
    """

    def __init__(
        self,
        model: BlocksClassifier,
        start: int,
        modality: Modality[Any, Any],
        samples: Sequence[Sample],
        labels: Tensor,
        micro_batch_tokens: int,
        precision: Precision = "float32",
        copies: int = 1,
    ) -> None:
        self.module: nn.Module = _UpperLayers(model, start)
        self.copies = copies
        self._sizes = torch.tensor([sample.size for sample in samples])
        self._lengths = _lengths(samples, copies)
        self._hidden, self._lower_parts = _run_lower(model, start, modality, samples)
        self._labels = labels
        self._micro_batch_tokens = micro_batch_tokens
        self._precision = precision

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """As in ``Records``."""
        for records in _by_length(batch, self._lengths, self._micro_batch_tokens, processes):
            rows = _rows_or_any(records, self.copies)
            hidden = pad_sequence([self._hidden[row] for row in rows.tolist()], batch_first=True)
            mask = torch.arange(hidden.shape[1]) < self._sizes[rows].unsqueeze(1)
            inputs = (hidden, mask, self._lower_parts[rows])
            labels, copies = self._labels[records], self.copies
            yield _losses(labels, *inputs, precision=self._precision, copies=copies)


def rows_of(records: Tensor, copies: int) -> Tensor:
    """The rows of records [B] that have K copies each, [B·K], those of one next to each other."""
    return (records.unsqueeze(1) * copies + torch.arange(copies)).flatten()


def _rows_or_any(records: Tensor, copies: int) -> Tensor:
    rows = rows_of(records, copies)
    return rows if len(rows) else torch.zeros(1, dtype=torch.long)


def _lengths(samples: Sequence[Sample], copies: int) -> Tensor:
    """How many positions each record takes in a batch, its copies and their padding counted."""
    sizes = torch.tensor([sample.size for sample in samples], dtype=torch.long)
    return sizes.view(-1, copies).amax(1) * copies


def states_size(samples: Sequence[Sample], dim: int) -> int:
    """Bytes that the hidden states of these samples take."""
    return 4 * dim * sum(sample.size for sample in samples)


class _UpperLayers(nn.Module):
    """A classifier from the hidden states after its frozen layers on."""

    def __init__(self, model: BlocksClassifier, start: int) -> None:
        super().__init__()
        self.model = model
        self.start = start

    def forward(self, hidden: Tensor, mask: Tensor, lower_parts: Tensor) -> Tensor:
        """Logits [B, K] for states [B, T, D], their mask and what was pooled below them."""
        _, states, _ = self.model.run_layers(hidden, mask, start=self.start)
        parts = torch.cat([lower_parts, self.model.pool_each(states, mask)], dim=-1)
        logits: Tensor = self.model.head(F.normalize(parts, dim=-1))
        return logits


@torch.no_grad()
def _run_lower(
    model: BlocksClassifier, start: int, modality: Modality[Any, Any], samples: Sequence[Sample]
) -> tuple[list[Tensor], Tensor]:
    """The states after ``start`` layers, [T, D] for each sample, and what is pooled until then."""
    pooled = [number for number in model.config.pooled_layers if number <= start]
    hidden: list[Tensor] = [torch.empty(0)] * len(samples)
    parts = torch.empty(len(samples), model.config.dim * len(pooled))
    for rows in batches_by_length(samples, 32):
        inputs = modality.collate([samples[row] for row in rows])
        mask = inputs.mask
        x, states, _ = model.run_layers(model.embed(inputs.values), mask, stop=start)
        if states:
            parts[rows] = model.pool_each(states, mask)
        for row, state, length in zip(rows, x, mask.sum(1).tolist(), strict=True):
            hidden[row] = state[:length].clone()
    return hidden, parts


def _by_length(
    batch: Tensor, lengths: Tensor, most_tokens: int, processes: Processes
) -> Iterator[Tensor]:
    """Cut a batch into micro-batches of similar length, and of each the share of this process."""

    def micro_batches() -> Iterator[Tensor]:
        longest_first = batch[lengths[batch].argsort(descending=True, stable=True)]
        while len(longest_first):
            size = max(1, most_tokens // max(1, int(lengths[longest_first[0]])))
            yield longest_first[: size * processes.count]
            longest_first = longest_first[size * processes.count :]

    return processes.shares(micro_batches())


def _losses(
    labels: Tensor,
    *inputs: Tensor,
    precision: Precision = "float32",
    copies: int = 1,
    task: Task = CLASSIFY,
) -> Losses:
    """One loss a record, the mean over its copies.

    A process whose share has no records computes with another row, since not every layer takes
    none, and makes no loss of it: what flows back from there is 0.
    """

    def losses(module: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = module(*inputs)
        logits = logits[: copies * len(labels)].float()
        each = task.losses(logits, labels.repeat_interleave(copies, 0))
        return each.view(-1, copies).mean(1)

    return losses
