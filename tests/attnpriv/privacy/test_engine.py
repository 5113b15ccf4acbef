"""Clipped and noised steps against a plain loop over the records."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.engine import PrivateStepper
from attnpriv.privacy.sampling import make_generator

HARDENED = AttentionConfig(2.0, 1.0, "norm")
LEARNED = AttentionConfig(2.0, 1.0, "clamp", "additive", temperature_floor=0.5)


def make_model(trainable: str, attention: AttentionConfig = HARDENED) -> TextClassifier:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=23,
        dim=12,
        layers=2,
        heads=3,
        hidden_dim=7,
        max_length=11,
        num_labels=5,
        attention=attention,
    )
    model = TextClassifier(config)
    nn.init.normal_(model.head.weight)
    model.select_trainable(trainable)
    return model


def make_batch(records: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 23, (records, 7), generator=generator)
    mask = torch.arange(7) < torch.randint(2, 8, (records, 1), generator=generator)
    return ids, mask, torch.randint(0, 5, (records,), generator=generator)


def loss_of(rows: slice, batch: tuple[Tensor, Tensor, Tensor]) -> Callable[[nn.Module], Tensor]:
    ids, mask, labels = (x[rows] for x in batch)
    return lambda module: F.cross_entropy(module(ids, mask), labels, reduction="sum")


def make_stepper(
    model: nn.Module, noise: float = 0.0, clip: float = 0.5, expected: float = 10.0
) -> PrivateStepper:
    """Plain gradient descent at rate 1: the update is the released gradient itself."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return PrivateStepper(
        model,
        torch.optim.SGD(trained, lr=1.0),
        noise_multiplier=noise,
        max_grad_norm=clip,
        expected_batch_size=expected,
        generator=make_generator(0),
    )


def trained_weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters() if p.requires_grad]


def clipped_mean_by_loop(
    model: nn.Module, batch: tuple[Tensor, Tensor, Tensor], clip: float, expected: float
) -> list[Tensor]:
    trained = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p) for p in trained]
    for record in range(len(batch[2])):
        grads = torch.autograd.grad(loss_of(slice(record, record + 1), batch)(model), trained)
        norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
        for t, g in zip(total, grads, strict=True):
            t += g * min(1.0, clip / (norm + 1e-6)) / expected
    return total


@pytest.mark.parametrize("trainable", ["head", "last:1", "all"])
@pytest.mark.parametrize("attention", [HARDENED, LEARNED], ids=str)
@pytest.mark.parametrize("clip", [0.05, 100.0])
@pytest.mark.parametrize("cuts", [(0, 13), (0, 1, 6, 13)])
def test_a_step_without_noise_is_the_mean_of_clipped_gradients(
    trainable: str, attention: AttentionConfig, clip: float, cuts: tuple[int, ...]
) -> None:
    model, batch = make_model(trainable, attention), make_batch(13)
    expected = clipped_mean_by_loop(model, batch, clip, 10.0)
    before = trained_weights(model)
    stepper = make_stepper(model, clip=clip)
    stepper.step(loss_of(slice(start, stop), batch) for start, stop in pairwise(cuts))
    for old, new, gradient in zip(before, trained_weights(model), expected, strict=True):
        torch.testing.assert_close(old - new, gradient, rtol=1e-4, atol=1e-6)


def test_an_empty_batch_is_a_step_of_pure_noise_of_the_stated_size() -> None:
    model = make_model("all")
    before = trained_weights(model)
    make_stepper(model, noise=3.0, clip=0.5, expected=10.0).step(iter(()))
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(before, trained_weights(model), strict=True)]
    )
    assert moved.std().item() == pytest.approx(3.0 * 0.5 / 10.0, rel=0.05)
    assert abs(moved.mean().item()) < 4 * moved.std().item() / math.sqrt(moved.numel())


def test_noise_is_fresh_in_every_step_and_is_added_once_for_all_micro_batches() -> None:
    model, batch = make_model("head"), make_batch(6)
    stepper = make_stepper(model, noise=1e6, clip=1e-6)  # what moves the weights is noise
    moves = []
    for _ in range(2):
        before = trained_weights(model)
        stepper.step(loss_of(slice(i, i + 2), batch) for i in (0, 2, 4))
        moves.append(before[0] - trained_weights(model)[0])
    assert not torch.equal(moves[0], moves[1])
    for move in moves:
        assert move.std().item() == pytest.approx(1.0 / 10.0, rel=0.25)


def test_a_record_with_a_non_finite_gradient_is_dropped_and_counted() -> None:
    class Weighted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.linear(x)
            return out

    model = Weighted()
    x = torch.tensor([[1.0, 0.0, 0.0], [math.nan, 1.0, 1.0], [0.0, 0.0, 2.0]])
    before = model.linear.weight.detach().clone()
    stepper = make_stepper(model, clip=100.0, expected=1.0)
    stepper.step(iter([lambda module: module(x).sum()]))
    assert stepper.skipped_records == 1
    torch.testing.assert_close(
        before - model.linear.weight.detach(), torch.tensor([[1.0, 0.0, 2.0]])
    )


def test_layers_that_mix_records_are_refused() -> None:
    with pytest.raises(InputError, match="cannot be trained privately"):
        make_stepper(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))


class Scaled(nn.Module):
    """A parameter that sits on no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.full((1,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out * self.scale


def test_a_bare_parameter_is_clipped_with_the_others() -> None:
    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(5, 3)
    trained = list(model.parameters())
    total = [torch.zeros_like(p) for p in trained]
    for row in x:
        grads = torch.autograd.grad(model(row[None]).pow(2).sum(), trained)
        norm = torch.cat([g.flatten() for g in grads]).norm()
        for t, g in zip(total, grads, strict=True):
            t += g * (0.5 / norm).clamp(max=1)
    before = trained_weights(model)
    stepper = make_stepper(model, clip=0.5, expected=1.0)
    stepper.step(iter([lambda module: module(x).pow(2).sum()]))
    for old, new, gradient in zip(before, trained_weights(model), total, strict=True):
        torch.testing.assert_close(old - new, gradient, rtol=1e-4, atol=1e-5)


def test_a_layer_that_no_record_reaches_is_refused_by_name() -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    stepper = make_stepper(model)
    with pytest.raises(InputError, match=r"does not depend on the trainable parameter .*idle"):
        stepper.step(iter([lambda _: model["used"](torch.ones(2, 3)).sum()]))


def test_a_trainable_parameter_outside_the_optimizer_is_refused() -> None:
    model = make_model("last:1")
    with pytest.raises(InputError, match=r"blocks\.1.* would not be clipped"):
        PrivateStepper(
            model,
            torch.optim.SGD(model.head.parameters(), lr=1.0),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=1.0,
            generator=make_generator(0),
        )


def test_close_leaves_an_ordinary_module() -> None:
    model, batch = make_model("all"), make_batch(4)
    stepper = make_stepper(model, noise=1.0)
    stepper.step(iter([loss_of(slice(0, 4), batch)]))
    stepper.close()
    loss_of(slice(0, 4), batch)(model).backward()
    for parameter in model.parameters():
        assert not hasattr(parameter, "grad_sample")
        assert not hasattr(parameter, "summed_grad")
        assert parameter.grad is not None
