"""Teaching a copy of an encoder to do under bounded attention what it does without a bound.

Only public texts are read, and no labels: what the copy learns from is what the encoder itself
makes of each text. Shapes: B texts, T tokens, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import BoundingConfig
from attnpriv.errors import InputError
from attnpriv.training.processes import Processes

POOLED = 5.0  # weight of the pooled vectors beside the hidden states, whose weight is 1
LONGEST_GRADIENT = 1.0  # to which the norm of a step's gradient is cut
WARMUP = 100  # steps, or a tenth of all where they are fewer
BETAS = (0.9, 0.98)
SORTED_TOGETHER = 2048  # texts among which those of similar length share a batch
HELD_OUT = 512  # texts that are not learned from, or a tenth of all where they are fewer
FEWEST = 100  # texts


class Layered(Protocol):
    """An encoder as this module needs it."""

    @property
    def module(self) -> nn.Module:
        """Holds the weights; those that require a gradient are learned."""

    @property
    def pooled(self) -> tuple[int, ...]:
        """The layers, from 1, whose averages over the tokens are compared too."""

    def states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Hidden states [B, T, D] after every layer, of ids [B, T] under mask [B, T]."""


@dataclass(frozen=True)
class Texts:
    """Tokenised public texts, in batches of similar length.

    Attributes:
        ids: of each text, special tokens included.
        pad_id: what fills a batch up.
        config: how long a text and a batch may be, and the seed.
    """

    ids: Sequence[NDArray[np.int32]]
    pad_id: int
    config: BoundingConfig

    def __post_init__(self) -> None:
        if len(self.ids) < FEWEST:
            raise InputError(f"expected at least {FEWEST} different texts, got {len(self.ids)}")

    def _order(self) -> NDArray[np.int64]:
        return np.random.default_rng((self.config.seed, 0)).permutation(len(self.ids))

    @property
    def _held_out_size(self) -> int:
        return min(HELD_OUT, len(self.ids) // 10)

    def held_out(self) -> list[NDArray[np.int64]]:
        """Batches of the texts that are not learned from."""
        return list(self._batches(self._order()[: self._held_out_size]))

    def batches(self) -> Iterator[NDArray[np.int64]]:
        """Batches of row numbers to learn from, without end, each text once in a pass."""
        rows = self._order()[self._held_out_size :]
        epoch = 0
        while True:
            epoch += 1
            chance = np.random.default_rng((self.config.seed, epoch))
            shuffled = chance.permutation(rows)
            batches = list(
                chain.from_iterable(
                    self._batches(shuffled[start : start + SORTED_TOGETHER])
                    for start in range(0, len(rows), SORTED_TOGETHER)
                )
            )
            for number in chance.permutation(len(batches)):
                yield batches[number]

    def _batches(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """The rows by length, in runs that fill ``batch_tokens``."""
        lengths = np.array([len(self.ids[row]) for row in rows])
        by_length = rows[np.argsort(lengths, kind="stable")]
        start = 0
        for end in range(1, len(by_length) + 1):
            # The next row is the longest so far: it decides how wide the batch would become.
            is_last = end == len(by_length)
            if is_last or len(self.ids[by_length[end]]) * (end + 1 - start) > (
                self.config.batch_tokens
            ):
                yield by_length[start:end]
                start = end

    def tokens(self, rows: NDArray[np.int64]) -> int:
        """How many tokens the rows have together."""
        return sum(len(self.ids[row]) for row in rows)

    def padded(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The rows' ids and mask, [B, T] each."""
        width = max(len(self.ids[row]) for row in rows)
        ids = torch.full((len(rows), width), self.pad_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for place, row in enumerate(rows):
            ids[place, : len(self.ids[row])] = torch.from_numpy(self.ids[row]).long()
            mask[place, : len(self.ids[row])] = True
        return ids, mask


@dataclass(frozen=True)
class Distance:
    """How far a copy is from its encoder, averaged over texts.

    Attributes:
        loss: what is minimised, see ``Comparison``.
        cosine: 1 minus the cosine of the two vectors that a classifier's head would see, the
            averages of the pooled layers side by side, each of norm 1.
    """

    loss: float
    cosine: float


class Comparison:
    """An encoder, a copy of it, and the texts on which they are compared.

    The loss of some texts is the mean squared difference of the hidden states of the visible
    tokens, summed over all layers, plus 5 times the cosine distance of each pooled layer's average
    over the tokens, summed over the pooled layers.

    Source: hidden states as what is to be imitated, Sun et al. 2019 (arXiv:1908.09355, section 3.2)
    and Jiao et al. 2020 (arXiv:1909.10351, equation 8).

    Args:
        encoder: it is not changed.
        copy: of it, with bounded attention.
        texts: what both read.
    """

    def __init__(self, encoder: Layered, copy: Layered, texts: Texts) -> None:
        self.encoder, self.copy, self.texts = encoder, copy, texts
        self._bfloat16 = texts.config.precision == "bfloat16"

    def loss(self, rows: NDArray[np.int64], batch: NDArray[np.int64]) -> Tensor:
        """What these rows of a batch add to its loss."""
        apart, cosines, _ = self._apart(rows)
        return apart / self.texts.tokens(batch) + POOLED * cosines / len(batch)

    @torch.no_grad()
    def distance(self) -> Distance:
        """How far the copy is from the encoder on the texts that are held out."""
        batches = self.texts.held_out()
        sums = [self._apart(batch) for batch in batches]
        texts = sum(len(batch) for batch in batches)
        apart = sum(float(each) for each, _, _ in sums) / sum(map(self.texts.tokens, batches))
        cosines, whole = (sum(float(each[i]) for each in sums) / texts for i in (1, 2))
        return Distance(apart + POOLED * cosines, whole)

    def _apart(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Sums over tokens of squared differences, and over texts of two cosine distances."""
        ids, mask = self.texts.padded(rows)
        with torch.no_grad():
            theirs = self._states(self.encoder, ids, mask)
        ours = self._states(self.copy, ids, mask)
        visible = mask.unsqueeze(-1)
        pairs = list(zip(ours, theirs, strict=True))
        squares = torch.stack([((a - b) ** 2 * visible).sum() / a.shape[-1] for a, b in pairs])
        pooled = [
            torch.stack(
                [F.normalize((s[i - 1] * visible).sum(1), dim=-1) for i in self.copy.pooled]
            )
            for s in (ours, theirs)
        ]
        cosines = (pooled[0] * pooled[1]).sum(-1)  # of each pooled layer and text
        return squares.sum(), (1 - cosines).sum(), (1 - cosines.mean(0)).sum()

    def _states(self, encoder: Layered, ids: Tensor, mask: Tensor) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bfloat16):
            return [state.float() for state in encoder.states(ids, mask)]


class Bounding:
    """One copy while it learns to be near its encoder.

    Args:
        comparison: the encoder, the copy and the texts; what the loss is.
        processes: those that share the batches.
    """

    def __init__(self, comparison: Comparison, processes: Processes) -> None:
        self.steps_taken = 0
        self.config = comparison.texts.config
        self._comparison, self._processes = comparison, processes
        self._batches = comparison.texts.batches()
        learned = comparison.copy.module.parameters()
        self._parameters = [parameter for parameter in learned if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=self.config.learning_rate, betas=BETAS, weight_decay=0.0
        )

    def step(self) -> float:
        """Learn from the next batch; returns its loss."""
        batch = next(self._batches)
        self.steps_taken += 1
        scale = _rate_scale(self.steps_taken, self.config.steps)
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.learning_rate * scale
        loss = self._gradients(batch)
        nn.utils.clip_grad_norm_(self._parameters, LONGEST_GRADIENT)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss

    def _gradients(self, batch: NDArray[np.int64]) -> float:
        """Leave the gradients of a batch's loss in the weights, whoever computes which rows."""
        share = batch[self._processes.rank :: self._processes.count]
        loss = torch.zeros(())
        if len(share):
            loss = self._comparison.loss(share, batch)
            loss.backward()  # type: ignore[no-untyped-call]
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        total = loss.detach().clone()
        self._processes.sum([total, *(p.grad for p in self._parameters if p.grad is not None)])
        if not math.isfinite(float(total)):
            raise InputError(
                f"the loss of step {self.steps_taken} is not finite: lower the learning rate"
            )
        return float(total)

    def state(self) -> dict[str, Tensor]:
        """Everything that steps change, by name."""
        tensors = {f"weight.{i}": p.detach() for i, p in enumerate(self._parameters)}
        for i, values in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in values.items()}
        return tensors

    def load_state(self, tensors: dict[str, Tensor], steps_taken: int) -> None:
        """Go on from a state that the same copy had after ``steps_taken`` steps."""
        for _ in range(steps_taken - self.steps_taken):
            next(self._batches)
        self.steps_taken = steps_taken
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, number, *rest = name.split(".")
            if kind == "weight":
                with torch.no_grad():
                    self._parameters[int(number)].copy_(tensor)
            else:
                state.setdefault(int(number), {})[rest[0]] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def _rate_scale(step: int, steps: int) -> float:
    """What the learning rate is multiplied by in a step, counted from 1."""
    warmup = min(WARMUP, max(1, steps // 10))
    if step <= warmup:
        return step / warmup
    return (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup + 1))) / 2
