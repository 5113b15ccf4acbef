"""The steps: Poisson batches, private or plain updates, an average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn

from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.privacy.canaries import AxisCanaries
from attnpriv.privacy.sampling import poisson_batch
from attnpriv.privacy.shards import held, like
from attnpriv.privacy.stepper import PrivateStepper
from attnpriv.randomness import StepKeys, Stream
from attnpriv.training.batches import Losses, Records
from attnpriv.training.canaries import PlantedCanaries
from attnpriv.training.processes import Processes

STRETCHES = 20  # how often a run looks up what it spends, and saves its state


@dataclass(frozen=True)
class Schedule:
    """How many steps are taken, each on how many of how many rows.

    The accountant's q is ``sample_rate`` and its T is ``steps``.
    """

    rows: int
    batch_size: int
    steps: int

    @property
    def sample_rate(self) -> float:
        """The q of the Poisson draw, B/N."""
        return self.batch_size / self.rows

    def stretch_end(self, step: int) -> int:
        """Where the stretch of steps ends that begins after, or goes on after, ``step`` steps."""
        length = max(1, self.steps // STRETCHES)
        return min((step // length + 1) * length, self.steps)


class Training:
    """A training in progress: everything that a step changes.

    Its whole state is the weights, the optimizer's state, the average, the key of the steps to come
    and what is known of canaries: ``state`` and ``load_state`` carry it over, bit for bit.

    Args:
        records: what to train on; its module is trained in place.
        optimizer: its learning rates are those of the steady phase.
        schedule: the rows and how they are drawn.
        config: warm-up and decay of the learning rates, decay of the average.
        privacy: clipping and its engine, or None for plain steps.
        noise_multiplier: σ; not used without privacy.
        keys: the secret from which batches and noise are drawn.
        processes: the processes that train together, each on its share of every micro-batch.
        canaries: made-up records that are trained on besides, if there are any; those among
            ``records`` come after the rows of the schedule.
        on_finish: called when the weights are final, if there is anything to do with them.
    """

    def __init__(
        self,
        records: Records,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
        config: TrainConfig,
        *,
        privacy: PrivacyConfig | None,
        noise_multiplier: float,
        keys: StepKeys,
        processes: Processes,
        canaries: PlantedCanaries | None = None,
        on_finish: Callable[[], None] | None = None,
    ) -> None:
        self.schedule = schedule
        self.canaries = canaries
        self.steps_taken = 0
        self._records = records
        self._optimizer = optimizer
        self._config = config
        self._keys = keys
        self._processes = processes
        self._on_finish = on_finish
        self._learning_rates = [group["lr"] for group in optimizer.param_groups]
        self._parameters = [p for p in records.module.parameters() if p.requires_grad]
        gradients = None if canaries is None else canaries.gradients
        self._stepper = _stepper(
            records, optimizer, schedule, privacy, noise_multiplier, gradients, processes
        )
        self._average = _WeightAverage(self._parameters, config.ema_decay)

    @property
    def skipped_records(self) -> int:
        """How many times a record's gradient was not finite, in the steps of this process."""
        return self._stepper.skipped_records

    def step(self) -> None:
        """Draw a batch and make one step from it."""
        keys = self._keys.advance()
        sampling = Stream(keys.sampling)
        rows = self.schedule.rows + (0 if self.canaries is None else self.canaries.count)
        batch = poisson_batch(rows, self.schedule.sample_rate, sampling)
        if self.canaries is not None:
            batch = self.canaries.enter(batch)
        scale = learning_rate_scale(self._config, self.steps_taken, self.schedule.steps)
        for group, rate in zip(self._optimizer.param_groups, self._learning_rates, strict=True):
            group["lr"] = rate * scale
        losses = self._records.losses(batch, self._processes)
        reduce = None if self._processes.sharded else self._processes.sum
        with self._processes.computing():
            self._stepper.step(losses, Stream(keys.noise), reduce)
        self._average.update()
        self.steps_taken += 1

    def finish(self) -> None:
        """Leave the averaged weights in an ordinary module."""
        self._stepper.close()
        self._average.apply()
        self._average.averages.clear()
        self._optimizer.state.clear()
        if self._on_finish is not None:
            self._on_finish()

    def state(self) -> tuple[dict[str, Tensor], bytes]:
        """The tensors that steps change, by name, and the key of the steps to come.

        Those that are sharded are of this process; ``shards.whole`` puts them together.
        """
        tensors = {f"weight.{i}": p.detach() for i, p in enumerate(self._parameters)}
        for i, average in enumerate(self._average.averages):
            tensors[f"average.{i}"] = like(self._parameters[i], average)
        for i, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{name}": value for name, value in state.items()}
        if self.canaries is not None:
            tensors |= {f"canaries.{name}": value for name, value in self.canaries.state().items()}
        return tensors, self._keys.key

    def load_state(self, tensors: dict[str, Tensor], key: bytes, steps_taken: int) -> None:
        """Go on from a state that the same training had after ``steps_taken`` steps.

        Args:
            tensors: of sharded ones, what this process holds.
            key: of the steps to come.
            steps_taken: number of steps taken.
        """
        self.steps_taken = self._average.updates = steps_taken
        self._keys = StepKeys(key)
        optimized = [p for group in self._optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Tensor]] = {}
        averages: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            kind, number, *rest = name.split(".")
            if kind == "weight":
                held(self._parameters[int(number)].detach()).copy_(tensor)
            elif kind == "average":
                averages[int(number)] = tensor
            elif kind == "canaries":
                if self.canaries is not None and number == "scores":
                    self.canaries.scores.copy_(tensor)
            else:
                # What Adam keeps is sharded as the parameter is, but for the number of its steps.
                of_all = tensor.dim() == 0
                parameter = optimized[int(number)]
                state.setdefault(int(number), {})[rest[0]] = (
                    tensor if of_all else like(parameter, tensor)
                )
        self._average.averages = [averages[i] for i in sorted(averages)]
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": state, "param_groups": groups})


def run(
    training: Training,
    begin_stretch: Callable[[int], None] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> None:
    """Take the steps that are left.

    Args:
        training: its state is what steps were taken from.
        begin_stretch: called with the number of steps that the next stretch will end with, before
            its first step.
        on_step: called with the number of steps taken, after each.
    """
    while training.steps_taken < training.schedule.steps:
        end = training.schedule.stretch_end(training.steps_taken)
        if begin_stretch is not None:
            begin_stretch(end)
        while training.steps_taken < end:
            training.step()
            if on_step is not None:
                on_step(training.steps_taken)


def learning_rate_scale(config: TrainConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied by in a step, counted from 0.

    It rises over the first ``warmup`` share of the steps, and then falls along a line or half a
    cosine, which would reach 0 in the step after the last, or stays.
    """
    warmup = math.ceil(config.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    match config.decay:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return (1.0 + math.cos(math.pi * progress)) / 2
        case unknown:
            assert_never(unknown)


class _PlainStepper:
    """Ordinary steps with the interface of ``PrivateStepper``."""

    skipped_records = 0

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        batch: float,
        processes: Processes,
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.expected_batch_size = batch
        self.processes = processes

    def step(
        self,
        losses: Iterable[Losses],
        noise: Stream,
        reduce: Callable[[list[Tensor]], None] | None,
    ) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for losses_of in losses:
            loss = losses_of(self.module).sum() / self.expected_batch_size
            loss.backward()  # type: ignore[no-untyped-call]
        gradients = [held(parameter.grad) for parameter in parameters]
        if reduce is not None:
            reduce(gradients)
        broken = torch.tensor([sum(float(not g.isfinite().all()) for g in gradients)])
        self.processes.sum([broken])  # so that all of them stop, whose shard it may be
        if bool(broken):
            raise InputError(
                "a gradient is not finite: lower the learning rates, or check the data"
            )
        self.optimizer.step()

    def close(self) -> None:
        self.optimizer.zero_grad()


def _stepper(
    records: Records,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    privacy: PrivacyConfig | None,
    noise_multiplier: float,
    canaries: AxisCanaries | None,
    processes: Processes,
) -> PrivateStepper | _PlainStepper:
    if privacy is None:
        return _PlainStepper(records.module, optimizer, schedule.batch_size, processes)
    return PrivateStepper(
        records.module,
        optimizer,
        copies=records.copies,
        noise_multiplier=noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        expected_batch_size=schedule.batch_size,
        clipping=privacy.clipping,
        clipping_engine=privacy.clipping_engine,
        canaries=canaries,
    )


class _WeightAverage:
    """Exponential moving average of the trainable weights, started at the first update.

    Averaging noised weights is post-processing: it costs no ε.
    """

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.averages: list[Tensor] = []
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        if not self.averages:
            self.averages = [held(p.detach()).clone() for p in self.parameters]
        self.updates += 1
        # The first updates weigh more, so that the average does not lag behind the start.
        weight = (1 - self.decay) / (1 - self.decay**self.updates)
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            average.lerp_(held(parameter), weight)

    @torch.no_grad()
    def apply(self) -> None:
        for average, parameter in zip(self.averages, self.parameters, strict=True):
            held(parameter).copy_(average)
