"""Clipped and noised steps against a plain loop over the records."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise, permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import AttentionConfig, Clipping, ClippingEngine, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.stepper import PrivateStepper
from attnpriv.randomness import Stream

ENGINES: tuple[ClippingEngine, ...] = ("book_keeping", "hooks", "ghost")
HARDENED = AttentionConfig(2.0, 1.0, "norm")
LEARNED = AttentionConfig(2.0, 1.0, "clamp", "additive", temperature_floor=0.5)

Batch = tuple[Tensor, Tensor, Tensor]
each_engine = pytest.mark.parametrize("engine", ENGINES)


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


def make_batch(records: int) -> Batch:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 23, (records, 7), generator=generator)
    mask = torch.arange(7) < torch.randint(2, 8, (records, 1), generator=generator)
    return ids, mask, torch.randint(0, 5, (records,), generator=generator)


def losses_of(rows: slice, batch: Batch) -> Callable[[nn.Module], Tensor]:
    ids, mask, labels = (x[rows] for x in batch)
    return lambda module: F.cross_entropy(module(ids, mask), labels, reduction="none")


def noise(step: int = 0) -> Stream:
    return Stream(step.to_bytes(32, "little"))


def make_stepper(
    model: nn.Module,
    engine: ClippingEngine = "book_keeping",
    noise_multiplier: float = 0.0,
    clip: float = 0.5,
    expected: float = 10.0,
    clipping: Clipping = "flat",
) -> PrivateStepper:
    """Plain gradient descent at rate 1: the update is the released gradient itself."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return PrivateStepper(
        model,
        torch.optim.SGD(trained, lr=1.0),
        noise_multiplier=noise_multiplier,
        max_grad_norm=clip,
        expected_batch_size=expected,
        clipping=clipping,
        clipping_engine=engine,
    )


def trained_weights(model: nn.Module) -> Tensor:
    """All of them, one after another."""
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.cat([p.detach().flatten() for p in trained]).double()


def move(model: nn.Module, step: Callable[[], None]) -> Tensor:
    """What a step subtracts from the weights."""
    before = trained_weights(model)
    step()
    return before - trained_weights(model)


def clipped_sum(
    model: nn.Module,
    losses: Sequence[Callable[[nn.Module], Tensor]],
    clip: float,
    clipping: Clipping = "flat",
) -> Tensor:
    """Over micro-batches of one record each."""
    trained = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros_like(trained_weights(model))
    for loss in losses:
        parts = torch.autograd.grad(loss(model).sum(), trained)
        gradient = torch.cat([part.flatten().double() for part in parts])
        norm = float(gradient.norm())
        factor = clip / (norm + 0.01) if clipping == "automatic" else min(1.0, clip / norm)
        total += gradient * factor
    return total


def one_by_one(batch: Batch) -> list[Callable[[nn.Module], Tensor]]:
    return [losses_of(slice(i, i + 1), batch) for i in range(len(batch[2]))]


@pytest.mark.every_pair
@each_engine
@pytest.mark.parametrize("trainable", ["head", "lora:2", "all"])
@pytest.mark.parametrize("attention", [HARDENED, LEARNED], ids=["hardened", "learned"])
def test_steps_without_noise_are_means_of_clipped_gradients(
    engine: ClippingEngine, trainable: str, attention: AttentionConfig
) -> None:
    """More than one step, and micro-batches of other sizes in each."""
    model, batch = make_model(trainable, attention), make_batch(13)
    stepper = make_stepper(model, engine, clip=0.5, expected=2.0)
    for step, cuts in enumerate([(0, 13), (0, 1, 6, 13), (4, 9)]):
        rows = one_by_one(tuple(x[cuts[0] : cuts[-1]] for x in batch))  # type: ignore[arg-type]
        expected = clipped_sum(copy_of(model, trainable, attention), rows, 0.5) / 2.0
        micro_batches = [losses_of(slice(start, stop), batch) for start, stop in pairwise(cuts)]
        moved = move(model, lambda step=step, m=micro_batches: stepper.step(iter(m), noise(step)))
        assert (moved - expected).norm() <= 2e-6 * expected.norm()


@each_engine
def test_biases_by_position_take_part_and_stay(engine: ClippingEngine) -> None:
    plain, batch = make_model("all", AttentionConfig(2.0, 1.0, "relative")), make_batch(5)
    model = TextClassifier(replace(plain.config, relative_positions=True))
    biases = {name: torch.randn_like(x) for name, x in model.named_buffers()}
    model.load_state_dict({**plain.state_dict(), **biases})
    assert len(biases) == 2
    expected = clipped_sum(copy.deepcopy(model), one_by_one(batch), 0.5)
    without = clipped_sum(plain, one_by_one(batch), 0.5)
    stepper = make_stepper(model, engine, clip=0.5, expected=1.0)
    moved = move(model, lambda: stepper.step(iter([losses_of(slice(0, 5), batch)]), noise()))
    assert (moved - expected).norm() <= 2e-6 * expected.norm()
    assert (moved - without).norm() >= 1e-3 * expected.norm()
    kept = dict(model.named_buffers())
    assert all(torch.equal(kept[name], bias) for name, bias in biases.items())


def copy_of(model: nn.Module, trainable: str, attention: AttentionConfig) -> nn.Module:
    """The same weights without an engine."""
    twin = make_model(trainable, attention)
    twin.load_state_dict(model.state_dict())
    return twin


@each_engine
@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_clipping_by_its_formula(engine: ClippingEngine, clipping: Clipping, clip: float) -> None:
    model, batch = make_model("all"), make_batch(6)
    expected = clipped_sum(model, one_by_one(batch), clip, clipping) / 10.0
    stepper = make_stepper(model, engine, clip=clip, clipping=clipping)
    losses = losses_of(slice(None), batch)
    moved = move(model, lambda: stepper.step(iter([losses]), noise()))
    # Weights of size 1 in float32 cannot show a move to 1e-6 of it where the move is short.
    assert (moved - expected).norm() <= 2e-6 * expected.norm() + 1e-6


@each_engine
def test_an_empty_batch_is_a_step_of_pure_noise_of_the_stated_size(engine: ClippingEngine) -> None:
    model = make_model("all")
    stepper = make_stepper(model, engine, noise_multiplier=3.0, clip=0.5, expected=10.0)
    moved = move(model, lambda: stepper.step(iter(()), noise()))
    assert moved.std().item() == pytest.approx(3.0 * 0.5 / 10.0, rel=0.05)
    assert abs(moved.mean().item()) < 4 * moved.std().item() / math.sqrt(moved.numel())


@each_engine
def test_micro_batches_may_be_empty(engine: ClippingEngine) -> None:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 2), torch.randn(5, 3)
    rows = [lambda module, i=i: module(x[i : i + 1]).square().sum(1) for i in range(5)]
    expected = clipped_sum(model, rows, 0.5)
    stepper = make_stepper(model, engine, expected=1.0)
    micro_batches = [
        lambda module, chosen=x[start:stop]: module(chosen).square().sum(1)
        for start, stop in pairwise((0, 0, 2, 2, 5, 5))
    ]
    moved = move(model, lambda: stepper.step(iter(micro_batches), noise()))
    assert (moved - expected).norm() <= 1e-6 * expected.norm()


@each_engine
def test_noise_follows_its_stream_and_is_added_once_for_all_micro_batches(
    engine: ClippingEngine,
) -> None:
    model, batch = make_model("head"), make_batch(6)
    stepper = make_stepper(model, engine, noise_multiplier=1e6, clip=1e-6)  # all moves are noise
    moves = [
        move(
            model,
            lambda stream=stream: stepper.step(
                [losses_of(slice(i, i + 2), batch) for i in (0, 2, 4)], stream
            ),
        )
        for stream in (noise(1), noise(2), noise(1))
    ]
    torch.testing.assert_close(moves[0], moves[2], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(moves[0], moves[1], rtol=1e-1)
    for moved in moves:
        assert moved.std().item() == pytest.approx(1.0 / 10.0, rel=0.25)


@each_engine
def test_sums_are_reduced_before_the_noise(engine: ClippingEngine) -> None:
    """As of three processes that hold the same sum: three times the gradient, and one noise."""
    model, batch = make_model("all"), make_batch(5)
    gradient = clipped_sum(model, one_by_one(batch), 0.5) / 10.0
    losses = losses_of(slice(None), batch)
    shapes = []

    def threefold(totals: list[Tensor]) -> None:
        shapes.extend(total.shape for total in totals)
        for total in totals:
            total *= 3

    start = copy.deepcopy(model.state_dict())
    moves = {}
    for reduce in (None, threefold):
        for multiplier in (0.0, 1.0):
            model.load_state_dict(start)
            stepper = make_stepper(model, engine, noise_multiplier=multiplier)
            moves[reduce, multiplier] = move(
                model,
                lambda stepper=stepper, reduce=reduce: stepper.step([losses], noise(), reduce),
            )
            stepper.close()
    tolerance = {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(moves[None, 0.0], gradient, **tolerance)
    torch.testing.assert_close(moves[threefold, 0.0], 3 * gradient, **tolerance)
    added = moves[None, 1.0] - moves[None, 0.0]
    torch.testing.assert_close(moves[threefold, 1.0] - 3 * gradient, added, **tolerance)
    assert shapes == 2 * [p.shape for p in model.parameters() if p.requires_grad]


WITH_A_BROKEN_ROW = torch.tensor([[1.0, 0.0, 0.0], [math.nan, 1.0, 1.0], [0.0, 0.0, 2.0]])


@pytest.mark.parametrize("engine", ["book_keeping", "hooks"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_record_with_a_non_finite_gradient_is_dropped_and_counted(
    engine: ClippingEngine, bad: float
) -> None:
    model, x = nn.Linear(3, 1, bias=False), WITH_A_BROKEN_ROW.nan_to_num(nan=bad)
    stepper = make_stepper(model, engine, clip=100.0, expected=1.0)
    for step in (1, 2):
        moved = move(model, lambda: stepper.step([lambda module: module(x).sum(1)], noise()))
        assert stepper.skipped_records == step
        torch.testing.assert_close(moved.float(), torch.tensor([1.0, 0.0, 2.0]))


def test_ghost_refuses_a_non_finite_gradient() -> None:
    model = nn.Linear(3, 1, bias=False)
    stepper = make_stepper(model, "ghost")
    before = trained_weights(model)
    with pytest.raises(InputError, match="is not finite.*: take book_keeping or hooks"):
        stepper.step([lambda module: module(WITH_A_BROKEN_ROW).sum(1)], noise())
    assert torch.equal(trained_weights(model), before)


@each_engine
def test_losses_that_are_not_one_for_each_record_are_refused(engine: ClippingEngine) -> None:
    x = torch.randn(5, 3)
    for losses, shape in ((lambda m: m(x).sum(), r"\(\)"), (lambda m: m(x), r"\(5, 2\)")):
        stepper = make_stepper(nn.Linear(3, 2), engine)
        with pytest.raises(InputError, match=f"one loss for each record, got .* of shape {shape}"):
            stepper.step([losses], noise())
    for engine_that_counts in ("book_keeping", "ghost"):
        stepper = make_stepper(nn.Linear(3, 2), engine_that_counts)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="rows"):
            stepper.step([lambda m: m(x).sum().view(1)], noise())


@each_engine
def test_layers_that_mix_records_are_refused(engine: ClippingEngine) -> None:
    with pytest.raises(InputError, match="cannot be trained privately"):
        make_stepper(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), engine)


class Scaled(nn.Module):
    """A parameter that sits on no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.full((1,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x)
        return out * self.scale


def test_a_bare_parameter_is_clipped_by_hooks_and_refused_by_book_keeping() -> None:
    torch.manual_seed(0)
    model, x = Scaled(), torch.randn(5, 3)
    with pytest.raises(InputError, match="the trainable parameter scale .* engine hooks"):
        make_stepper(model, "book_keeping")
    rows = [lambda module, i=i: module(x[i : i + 1]).square().sum(1) for i in range(5)]
    expected = clipped_sum(model, rows, 0.5)
    stepper = make_stepper(model, "hooks", clip=0.5, expected=1.0)
    moved = move(model, lambda: stepper.step([lambda module: module(x).square().sum(1)], noise()))
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-5)


@each_engine
def test_a_layer_that_no_record_reaches_is_refused_by_name(engine: ClippingEngine) -> None:
    model = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    stepper = make_stepper(model, engine)
    with pytest.raises(InputError, match=r"does not depend on the trainable parameter idle\.weigh"):
        stepper.step([lambda _: model["used"](torch.ones(2, 3)).sum(1)], noise())


@each_engine
def test_a_trainable_parameter_outside_the_optimizer_is_refused(engine: ClippingEngine) -> None:
    model = make_model("last:1")
    with pytest.raises(InputError, match=r"blocks\.1.* would not be clipped"):
        PrivateStepper(
            model,
            torch.optim.SGD(model.head.parameters(), lr=1.0),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
            expected_batch_size=1.0,
            clipping_engine=engine,
        )


@each_engine
def test_channels_last_weights(engine: ClippingEngine) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 2, 3)).to(memory_format=torch.channels_last)
    x = torch.randn(5, 3, 4, 5)
    rows = [lambda module, i=i: module(x[i : i + 1]).square().sum((1, 2, 3)) for i in range(5)]
    expected = clipped_sum(model, rows, 0.5)
    stepper = make_stepper(model, engine, expected=1.0)
    losses = [lambda module: module(x).square().sum((1, 2, 3))]
    moved = move(model, lambda: stepper.step(losses, noise()))
    assert (moved - expected).norm() <= 1e-6 * expected.norm()


@each_engine
@pytest.mark.parametrize("steps", [0, 2])
def test_close_leaves_an_ordinary_module(engine: ClippingEngine, steps: int) -> None:
    model, batch = make_model("all"), make_batch(4)
    losses = losses_of(slice(0, 4), batch)
    stepper = make_stepper(model, engine, noise_multiplier=1.0)
    for step in range(steps):
        stepper.step([losses], noise(step))
    stepper.close()
    twin = copy.deepcopy(model)
    for module in (model, twin):
        assert type(module) is TextClassifier
        losses(module).sum().backward()
        for parameter in module.parameters():
            assert not hasattr(parameter, "grad_sample")
            assert not hasattr(parameter, "summed_grad")
            assert parameter.grad is not None
    ordinary = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    copied = torch.cat([p.grad.flatten() for p in twin.parameters() if p.grad is not None])
    assert torch.equal(ordinary, copied)
    before = trained_weights(model)
    torch.optim.SGD(twin.parameters(), lr=1.0).step()
    assert torch.equal(trained_weights(model), before)
    assert not torch.equal(trained_weights(twin), before)


@pytest.mark.parametrize(("first", "second"), list(permutations(ENGINES, 2)))
def test_two_engines_on_one_module_in_turn(first: ClippingEngine, second: ClippingEngine) -> None:
    model, batch = make_model("all", LEARNED), make_batch(6)
    for engine in (first, second, first):
        expected = clipped_sum(model, one_by_one(batch), 0.5)
        stepper = make_stepper(model, engine, expected=1.0)
        losses = [losses_of(slice(0, 6), batch)]
        moved = move(model, lambda stepper=stepper, x=losses: stepper.step(x, noise()))
        stepper.close()
        assert (moved - expected).norm() <= 2e-6 * expected.norm()
