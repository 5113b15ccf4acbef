"""The replay audit catches trainers that were built wrong, and leaves right ones alone."""

from __future__ import annotations

from functools import partial
from typing import Any, get_args

import pytest
import torch
from torch import nn

from attnpriv.config import ClippingEngine, PrivacyConfig, TrainConfig
from attnpriv.privacy.clipping import clip_factors
from attnpriv.privacy.clipping.book_keeping import BookKeeping
from attnpriv.privacy.sampling import poisson_batch
from attnpriv.randomness import StepKeys, Stream
from attnpriv.training.batches import HeadRecords, Records
from attnpriv.training.loop import Schedule, Training
from attnpriv.training.processes import Processes
from attnpriv.training.replay import Begin, Subject
from attnpriv.training.replay_checks import Check, replay_audit
from attnpriv.training.verification import verify_trainer

SIGMA, C = 1.3, 0.7
SCHEDULE = Schedule(rows=1009, batch_size=211, steps=50)
NAMES = ("one", "the same with another label", "the same again", "another", "a short one", "broken")


def subject(begin: Begin) -> Subject:
    """Two layers, and six records of which the last one has a feature that is not finite."""
    generator = torch.Generator().manual_seed(3)
    module = nn.Sequential(nn.Linear(13, 17), nn.Tanh(), nn.Linear(17, 3))
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=generator)
    features = torch.randn(6, 13, generator=generator)
    features[1] = features[2] = features[0]
    features[4] *= 1e-3
    features[5, 7] = torch.inf
    return Subject(
        begin=begin,
        records=HeadRecords(module, features, torch.tensor([0, 1, 1, 2, 0, 1])),
        names=NAMES,
        make_optimizer=lambda: torch.optim.Adam(module.parameters(), lr=0.01),
        schedule=SCHEDULE,
        noise_multiplier=SIGMA,
        max_grad_norm=C,
        loss_scale=1e4,
    )


def real(
    records: Records, optimizer: Any, schedule: Schedule, keys: StepKeys, **changed: Any
) -> Training:
    """The trainer of ``attnpriv train``."""
    privacy = PrivacyConfig(epsilon=3.0, max_grad_norm=C, **changed)
    return Training(
        records, optimizer, schedule, TrainConfig(), privacy=privacy, noise_multiplier=SIGMA,
        keys=keys, processes=Processes(),
    )  # fmt: skip


class Built:
    """A trainer of the same parts, with at most one fault."""

    def __init__(
        self, records: Records, optimizer: Any, schedule: Schedule, keys: StepKeys, fault: str
    ) -> None:
        self.records, self.optimizer, self.schedule = records, optimizer, schedule
        self.keys, self.fault = keys, fault
        self.parameters = [*records.module.parameters()]
        self.steps = 0
        self.noise_key = b""

    def step(self) -> None:
        keys, faulty = self.keys.advance(), self.fault
        rate = self.schedule.sample_rate * (1.2 if faulty == "larger q" else 1)
        if faulty == "batches of one size":
            batch = torch.arange(self.schedule.batch_size)
        else:
            batch = poisson_batch(self.schedule.rows, rate, Stream(keys.sampling))
        if faulty == "empty batches skipped" and len(batch) == 0:
            return
        if faulty != "noise twice" or self.steps % 2 == 0:
            self.noise_key = keys.noise
        totals = self.sums(batch)
        deviation = {"no noise": 0.0, "half the noise": SIGMA / 2}.get(faulty, SIGMA) * C
        divisor = {"divisor from the data": self.schedule.rows, "divisor from the batch":
                   max(1, len(batch))}.get(faulty, self.schedule.batch_size)  # fmt: skip
        noise = Stream(self.noise_key)
        for parameter, total in totals.items():
            if faulty == "one layer without noise" and parameter is self.parameters[0]:
                parameter.grad = total / divisor
            elif deviation:
                parameter.grad = noise.add_normal_(total, deviation) / divisor
            else:
                parameter.grad = total / divisor
        self.optimizer.step()
        self.steps += 1

    def sums(self, batch: torch.Tensor) -> dict[nn.Parameter, torch.Tensor]:
        clip = partial(clip_factors, max_grad_norm=C, clipping="flat")
        if self.fault == "no clipping":
            return self.summed(batch, torch.ones_like)
        if self.fault == "clipping the batch":
            totals = self.summed(batch, torch.ones_like)
            norm = torch.cat([t.flatten() for t in totals.values()]).norm()
            factor = clip(norm[None]).nan_to_num(1.0)
            return {parameter: total * factor for parameter, total in totals.items()}
        totals = self.summed(batch, clip)
        if self.fault == "one layer unclipped":
            totals[self.parameters[0]] = self.summed(batch, torch.ones_like)[self.parameters[0]]
        return totals

    def summed(self, batch: torch.Tensor, factors: Any) -> dict[nn.Parameter, torch.Tensor]:
        totals = {parameter: torch.zeros_like(parameter) for parameter in self.parameters}
        engine = BookKeeping(self.records.module, factors)
        for losses_of in self.records.losses(batch):
            engine.accumulate(losses_of(self.records.module), totals)
        engine.close()
        return totals

    def finish(self) -> None:
        """Nothing is left to undo."""


def failed(begin: Begin, **options: Any) -> set[str]:
    checks: list[Check] = replay_audit(subject(begin), broken=5, **options)
    return {check.name for check in checks if not check.passed}


FAULTS = {
    "no noise": "noise",
    "half the noise": "noise",
    "one layer without noise": "noise of each parameter",
    "no clipping": "what one record adds",
    "clipping the batch": "records clipped one by one",
    "one layer unclipped": "what one record adds",
    "larger q": "sampling rate",
    "batches of one size": "spread of batch sizes",
    "divisor from the data": "divisor of the sum",
    "divisor from the batch": "noise of empty batches",
    "noise twice": "noise of different steps",
    "empty batches skipped": "noise of empty batches",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_caught(fault: str) -> None:
    assert FAULTS[fault] in failed(partial(Built, fault=fault))


def test_the_parts_without_a_fault_pass() -> None:
    assert failed(partial(Built, fault="none")) == set()


@pytest.mark.parametrize("engine", get_args(ClippingEngine))
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
def test_the_trainer_passes_with_every_engine(engine: str, clipping: str) -> None:
    assert failed(partial(real, clipping_engine=engine, clipping=clipping)) == set()


def test_a_refused_record_is_no_failure() -> None:
    checks = replay_audit(subject(partial(real, clipping_engine="ghost")), broken=5)
    last = checks[-1]
    assert (last.name, last.passed) == ("a gradient that is not finite", True)
    assert "refuses it" in last.detail


@pytest.mark.exhaustive
def test_a_hundred_right_trainers_raise_no_alarm() -> None:
    for seed in range(100):
        assert failed(real, seed=seed) == set(), seed


@pytest.mark.parametrize("trainable", ["head", "last:1"])
def test_a_configuration_of_train_passes(trainable: str) -> None:
    found = verify_trainer(
        config=TrainConfig(trainable=trainable),
        privacy=PrivacyConfig(epsilon=3.0, noise_multiplier=9.0),
        rows=500,
        normalise=trainable == "head",
    )
    assert found.plan.classifier.model.config.to_dict()["normalise"] is (trainable == "head")
    assert [check.name for check in found.checks if not check.passed] == []
    assert found.passed
