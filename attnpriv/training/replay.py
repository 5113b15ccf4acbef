"""Replays of a trainer: neighbouring data and the same coins, so that only a record can differ.

A trainer is shown records that it cannot refuse, and its optimizer is watched. Two replays from the
same weights and the same keys draw the same batch and the same noise. What their gradients differ
by is then what one record adds, and what is left of a gradient after its records is the noise.

Nothing here knows how the trainer works: it sees which rows were drawn and what the optimizer was
given. The idea is that of Re:cord-play (arXiv:2602.17454).

Shapes: d numbers in all trainable parameters together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attnpriv.randomness import StepKeys
from attnpriv.training.batches import Losses, Records
from attnpriv.training.loop import Schedule
from attnpriv.training.processes import ALONE, Processes

COMPARED = 2**17  # numbers of a gradient that are kept to compare the noise of steps


class Trainer(Protocol):
    """What is under test: ``training.loop.Training``, or another one with its interface."""

    def step(self) -> None:
        """Draw a batch and update the weights from it."""

    def finish(self) -> None:
        """Leave an ordinary module behind."""


Begin = Callable[[Records, torch.optim.Optimizer, Schedule, StepKeys], Trainer]
"""Makes a trainer of a module that has its initial weights."""


@dataclass(frozen=True)
class Subject:
    """A trainer with what it needs.

    Attributes:
        begin: makes the trainer.
        records: adversarial records, by number; their module is trained.
        names: of the records.
        make_optimizer: of a fresh optimizer of the module's parameters.
        schedule: rows, batch size and steps, as the accountant is told.
        noise_multiplier: σ, likewise.
        max_grad_norm: C.
        loss_scale: what every loss is multiplied by, so that clipping binds.
    """

    begin: Begin
    records: Records
    names: Sequence[str]
    make_optimizer: Callable[[], torch.optim.Optimizer]
    schedule: Schedule
    noise_multiplier: float
    max_grad_norm: float
    loss_scale: float


@dataclass
class NoiseSums:
    """What is kept of the noise of several steps, in units of σC/B.

    Attributes:
        squares: by parameter, the sum of squares over all steps.
        sizes: by parameter, its number of elements.
        compared: some numbers of each step, [steps, at most ``COMPARED``].
        batch_sizes: of each step.
        row_counts: how often each row was drawn.
        updates: how often the optimizer was called.
    """

    squares: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    compared: list[Tensor] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    row_counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))
    updates: int = 0

    @property
    def empty(self) -> int:
        """How many batches were empty."""
        return self.batch_sizes.count(0)


class Replays:
    """A trainer that starts again and again from the same weights.

    Args:
        subject: the trainer.
        seed: of the coins, which are the same in every replay.
    """

    def __init__(self, subject: Subject, seed: int) -> None:
        self._subject = subject
        self._seed = seed
        self._module = subject.records.module
        self._initial = [p.detach().clone() for p in self._parameters().values()]

    def gradient(self, served: Sequence[int]) -> Tensor:
        """The first update's gradient times the expected batch size, [d].

        Args:
            served: which records the batch holds, whatever rows are drawn.
        """
        schedule = self._subject.schedule
        _, watched = self._steps(served, schedule, 1)
        if len(watched.gradients) != 1:
            return torch.full((self.size,), torch.nan)
        return torch.cat([g.flatten() for g in watched.gradients[0]]) * schedule.batch_size

    def noise(self, schedule: Schedule, steps: int) -> NoiseSums:
        """What steps add that have no record to learn from, though rows are drawn."""
        sums = NoiseSums(row_counts=torch.zeros(schedule.rows, dtype=torch.long))
        parameters = self._parameters()
        sums.sizes = {name: p.numel() for name, p in parameters.items()}
        sums.squares = dict.fromkeys(parameters, 0.0)
        deviation = self._subject.noise_multiplier * self._subject.max_grad_norm
        every = -(-self.size // COMPARED)

        def add(gradients: list[Tensor]) -> None:
            scaled = [g * (schedule.batch_size / deviation) for g in gradients]
            for name, each in zip(parameters, scaled, strict=True):
                sums.squares[name] += float(each.double().square().sum())
            sums.compared.append(torch.cat([s.flatten()[::every] for s in scaled]))
            sums.updates += 1

        served, _ = self._steps((), schedule, steps, add)
        sums.batch_sizes = [len(batch) for batch in served.batches]
        for batch in served.batches:
            sums.row_counts[batch] += 1
        return sums

    @property
    def size(self) -> int:
        """How many numbers are trained, d."""
        return sum(p.numel() for p in self._initial)

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self._module.named_parameters() if p.requires_grad}

    def _steps(
        self,
        served: Sequence[int],
        schedule: Schedule,
        steps: int,
        on_gradients: Callable[[list[Tensor]], None] | None = None,
    ) -> tuple[_Served, _Watched]:
        subject = self._subject
        parameters = [*self._parameters().values()]
        with torch.no_grad():
            for parameter, initial in zip(parameters, self._initial, strict=True):
                parameter.copy_(initial)
        records = _Served(subject.records, served, subject.loss_scale)
        optimizer = subject.make_optimizer()
        watched = _Watched(parameters, on_gradients)
        optimizer.register_step_pre_hook(watched)
        trainer = subject.begin(records, optimizer, schedule, StepKeys.from_seed(self._seed))
        for _ in range(steps):
            trainer.step()
        trainer.finish()
        return records, watched


class _Served:
    """Records of which a batch holds the chosen ones, whatever rows of it were drawn."""

    def __init__(self, inner: Records, served: Sequence[int], scale: float) -> None:
        self.module, self.copies = inner.module, inner.copies
        self.batches: list[Tensor] = []
        self._inner = inner
        self._served = torch.tensor(served, dtype=torch.long)
        self._scale = scale

    def losses(self, batch: Tensor, processes: Processes = ALONE) -> Iterator[Losses]:
        """As in ``batches.Records``."""
        self.batches.append(batch)
        for losses_of in self._inner.losses(self._served, processes):
            yield _scaled(losses_of, self._scale)


def _scaled(losses_of: Losses, scale: float) -> Losses:
    return lambda module: losses_of(module) * scale


class _Watched:
    """What an optimizer is given, each time that it is called."""

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        on_gradients: Callable[[list[Tensor]], None] | None,
    ) -> None:
        self.gradients: list[list[Tensor]] = []
        self._parameters = parameters
        self._on_gradients = on_gradients or self._keep

    def __call__(self, optimizer: Any, args: Any, keywords: Any) -> None:
        self._on_gradients(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters]
        )

    def _keep(self, gradients: list[Tensor]) -> None:
        self.gradients.append([gradient.clone() for gradient in gradients])
