"""The schedule of the steps: rates, stretches, shares."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from attnpriv.config import Decay, ModelConfig, TrainConfig
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import Encoding, HashTokenizer
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.randomness import StepKeys
from attnpriv.training.batches import HeadRecords, SampleRecords
from attnpriv.training.loop import STRETCHES, Schedule, Training, learning_rate_scale
from attnpriv.training.processes import Processes


@pytest.mark.parametrize(
    ("decay", "warmup", "expected"),
    [
        ("constant", 0.0, [1, 1, 1, 1, 1]),
        ("linear", 0.0, [1, 0.8, 0.6, 0.4, 0.2]),
        ("cosine", 0.0, [1, 0.9045084972, 0.6545084972, 0.3454915028, 0.0954915028]),
        ("constant", 0.4, [0.5, 1, 1, 1, 1]),
        ("linear", 0.4, [0.5, 1, 1, 2 / 3, 1 / 3]),
        ("cosine", 0.2, [1, 1, 0.8535533906, 0.5, 0.1464466094]),
        ("linear", 0.99, [0.2, 0.4, 0.6, 0.8, 1]),
        ("cosine", 0.01, [1, 1, 0.8535533906, 0.5, 0.1464466094]),
    ],
)
def test_learning_rates(decay: Decay, warmup: float, expected: list[float]) -> None:
    config = TrainConfig(decay=decay, warmup=warmup)
    scales = [learning_rate_scale(config, step, 5) for step in range(5)]
    assert scales == pytest.approx(expected, abs=1e-9)


@pytest.mark.every_pair
@pytest.mark.parametrize("decay", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_no_step_is_without_effect_and_none_exceeds_the_rate(
    decay: Decay, warmup: float, steps: int
) -> None:
    config = TrainConfig(decay=decay, warmup=warmup)
    scales = [learning_rate_scale(config, step, steps) for step in range(steps)]
    assert all(0 < scale <= 1 for scale in scales)
    peak = scales.index(max(scales))
    assert scales[:peak] == sorted(scales[:peak])
    assert scales[peak:] == sorted(scales[peak:], reverse=True)


@pytest.mark.parametrize("steps", [1, 2, 3, 19, 20, 21, 39, 40, 41, 97, 200, 12345])
def test_stretches_cover_every_step_once_from_wherever_they_go_on(steps: int) -> None:
    schedule = Schedule(rows=240, batch_size=30, steps=steps)
    ends = [0]
    while ends[-1] < steps:
        ends.append(schedule.stretch_end(ends[-1]))
        assert ends[-1] > ends[-2]
    assert ends[-1] == steps
    assert len(ends) - 1 <= 2 * STRETCHES
    for step in range(steps):
        end = schedule.stretch_end(step)
        assert end in ends
        assert step < end <= steps
        assert not any(step < other < end for other in ends)


def test_the_sample_rate_is_that_of_the_accountant() -> None:
    assert Schedule(rows=240, batch_size=30, steps=1).sample_rate == 0.125


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [0, 1, 2, 5, 11])
def test_shares_partition_a_batch_and_are_as_many_where_the_model_is_sharded(
    count: int, size: int, sharded: bool
) -> None:
    lengths = torch.tensor([3, 5, 2, 7, 2, 5, 3, 11, 2, 7, 3])
    samples = [Encoding([2] * length, [(0, 1)] * length) for length in lengths]
    model = TextClassifier(ModelConfig("scratch", 11, 4, 1, 1, 8, 11, 2))
    records = SampleRecords(model, Text(HashTokenizer(11), 11), samples, lengths, 10)
    batch, shares = torch.randperm(11, generator=torch.Generator().manual_seed(1))[:size], []
    for rank in range(count):
        process = Processes()
        process.rank, process.count, process.sharded = rank, count, sharded
        shares.append([*records.micro_batches(batch, process)])
        for rows, ids, mask in shares[-1]:
            assert len(rows) <= 1 or mask.numel() <= 10
            assert len(ids) == len(mask) == max(1, len(rows))
            assert sharded or len(rows)
    rows = [rows for share in shares for rows, *_ in share]
    assert sorted(torch.cat([*rows, batch[:0]]).tolist()) == sorted(batch.tolist())
    if sharded:
        assert len({len(share) for share in shares}) == 1


def test_plain_training_ends_where_a_gradient_is_not_finite() -> None:
    head = nn.Linear(3, 2)
    before = [p.detach().clone() for p in head.parameters()]
    features = torch.tensor([[1.0, 2.0, 3.0], [math.nan, 0.0, 1.0]])
    training = Training(
        HeadRecords(head, features, torch.tensor([0, 1])),
        torch.optim.Adam(head.parameters()),
        Schedule(rows=2, batch_size=2, steps=1),
        TrainConfig(),
        privacy=None,
        noise_multiplier=0.0,
        keys=StepKeys.from_seed(0),
        processes=Processes(),
    )
    with pytest.raises(InputError, match="a gradient is not finite"):
        training.step()
    for parameter, old in zip(head.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
