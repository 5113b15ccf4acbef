"""The steps: Poisson batches, private or plain updates, an average of the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attnpriv.config import PrivacyConfig
from attnpriv.privacy.accounting import epsilon_spent, noise_multiplier_for
from attnpriv.privacy.engine import PrivateStepper
from attnpriv.privacy.ledger import NoisedSteps
from attnpriv.privacy.sampling import make_generator, poisson_batches
from attnpriv.training.batches import Loss, Records

EPSILON_UPDATES = 20  # how often a run looks up what it has spent; an accountant takes its time

OnStep = Callable[[int, int, float | None], None]


@dataclass(frozen=True)
class Schedule:
    """How many steps on how many of how many rows; together the accountant's q and T."""

    rows: int
    batch_size: int
    steps: int

    @property
    def sample_rate(self) -> float:
        """The q of the Poisson draw, B/N."""
        return self.batch_size / self.rows


@dataclass(frozen=True)
class Fitted:
    """What fitting ended with: noised steps (None without privacy), and how it went."""

    spent: NoisedSteps | None
    interrupted: bool
    skipped_records: int


def fit(
    records: Records,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    *,
    privacy: PrivacyConfig | None,
    seed: int,
    ema_decay: float,
    on_step: OnStep | None,
) -> Fitted:
    """Train ``records.module`` in place and leave the average of its weights in it.

    A KeyboardInterrupt ends the steps early, once there is a step to keep. A step that had begun
    counts as spent.
    """
    noise = 0.0 if privacy is None else _noise_multiplier(privacy, schedule)
    generator = make_generator(seed if privacy is None else privacy.noise_seed)
    stepper = _stepper(records.module, optimizer, schedule, privacy, noise, generator)
    average = _WeightAverage(records.module, ema_decay)
    begun, interrupted = 0, False
    try:
        for batch in poisson_batches(
            schedule.rows, schedule.sample_rate, schedule.steps, generator
        ):
            begun += 1
            stepper.step(records.losses(batch))
            average.update()
            if on_step is not None:
                shown = None if privacy is None else _spent_at_most(privacy, schedule, noise, begun)
                on_step(begun, schedule.steps, shown)
    except KeyboardInterrupt:
        if average.updates == 0:
            raise
        interrupted = True
    stepper.close()
    average.apply()
    spent = None
    if privacy is not None:
        spent = NoisedSteps(noise, schedule.sample_rate, begun, privacy.max_grad_norm)
    return Fitted(spent, interrupted, stepper.skipped_records)


class _PlainStepper:
    """Ordinary steps with the interface of ``PrivateStepper``."""

    skipped_records = 0

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer, batch: float) -> None:
        self.module = module
        self.optimizer = optimizer
        self.expected_batch_size = batch

    def step(self, losses: Iterable[Loss]) -> None:
        self.optimizer.zero_grad()
        for loss_of in losses:
            loss = loss_of(self.module) / self.expected_batch_size
            loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def close(self) -> None:
        self.optimizer.zero_grad()


def _stepper(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    privacy: PrivacyConfig | None,
    noise_multiplier: float,
    generator: torch.Generator,
) -> PrivateStepper | _PlainStepper:
    if privacy is None:
        return _PlainStepper(module, optimizer, schedule.batch_size)
    return PrivateStepper(
        module,
        optimizer,
        noise_multiplier=noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=schedule.batch_size,
        generator=generator,
    )


def _noise_multiplier(privacy: PrivacyConfig, schedule: Schedule) -> float:
    return noise_multiplier_for(
        privacy.epsilon, privacy.delta, schedule.sample_rate, schedule.steps, privacy.accountant
    )


def _spent_at_most(
    privacy: PrivacyConfig, schedule: Schedule, noise_multiplier: float, step: int
) -> float:
    """The ε at the end of the current twentieth of the run, so that what is shown is never less."""
    stretch = max(1, schedule.steps // EPSILON_UPDATES)
    end = min(-(-step // stretch) * stretch, schedule.steps)
    return epsilon_spent(
        noise_multiplier, privacy.delta, schedule.sample_rate, end, privacy.accountant
    )


class _WeightAverage:
    """Exponential moving average of the trainable weights, started at the first update.

    Averaging noised weights is post-processing: it costs no ε.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.averages: list[Tensor] = []
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        if not self.averages:
            self.averages = [p.detach().clone() for p in self.parameters]
        self.updates += 1
        # The first updates weigh more, so that the average does not lag behind the start.
        weight = (1 - self.decay) / (1 - self.decay**self.updates)
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(parameter, weight)

    @torch.no_grad()
    def apply(self) -> None:
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            parameter.copy_(average)
