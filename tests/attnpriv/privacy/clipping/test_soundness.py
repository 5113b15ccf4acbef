"""No record adds more than C, whatever it is and whatever happened before."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from attnpriv.config import AttentionConfig, ClippingEngine, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.clipping import gradients, make_engine
from attnpriv.privacy.clipping.book_keeping import BookKeeping
from attnpriv.privacy.clipping.gradients import Dense, Products

ENGINES: list[ClippingEngine] = ["book_keeping", "hooks", "ghost"]
CLIP = 0.5


def clipped_sum(
    engine: ClippingEngine, module: nn.Module, *losses_of: Callable[[nn.Module], Tensor]
) -> Tensor:
    """All parameters one after another, from one micro-batch for each of the functions."""
    made = make_engine(engine, module, CLIP, "flat")
    totals = {p: torch.zeros_like(p) for p in module.parameters() if p.requires_grad}
    for losses in losses_of:
        made.accumulate(losses(made.module), totals)
    made.close()
    return torch.cat([total.flatten() for total in totals.values()]).double()


def books(module: nn.Module) -> tuple[BookKeeping, dict[nn.Parameter, Tensor]]:
    engine = make_engine("book_keeping", module, CLIP, "flat")
    assert isinstance(engine, BookKeeping)
    return engine, {p: torch.zeros_like(p) for p in module.parameters() if p.requires_grad}


def length(totals: dict[nn.Parameter, Tensor]) -> float:
    return math.sqrt(sum(float(total.double().square().sum()) for total in totals.values()))


def cancelling_record(positions: int = 2, excess: float = 3e-4) -> tuple[Tensor, Tensor]:
    """Inputs and output gradients whose products all but cancel: xg, -(1 + excess)xg, xg, ..."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 1, 31, generator=generator).expand(1, positions, 31)
    g = torch.randn(1, 1, 37, generator=generator) * 1e3
    signs = torch.tensor([1.0, -1.0 - excess]).repeat(positions // 2)
    return x.contiguous(), g * signs.view(1, -1, 1)


@pytest.mark.parametrize("positions", [2, 4, 8])
def test_norms_survive_positions_that_cancel(
    monkeypatch: pytest.MonkeyPatch, positions: int
) -> None:
    x, g = cancelling_record(positions)
    exact = float((g.double().mT @ x.double()).square().sum())
    assert float(Products(x, g).squared_norms()) == pytest.approx(exact, rel=1e-3)
    monkeypatch.setattr(gradients, "CANCELLATION", math.inf)
    # Of terms of this size, float32 leaves nothing that could be told from zero.
    assert abs(float(Products(x, g).squared_norms()) / exact - 1) > 0.01


PUSHES = {
    "nearly": lambda g, h: torch.stack((g, -g * (1 + 3e-4))),
    "but for rounding": lambda g, h: torch.stack((g, h, -g - h)),
    "at all but one": lambda g, h: torch.stack((g, -g, h, -h, 1e-5 * (g + h))),
}


@pytest.mark.every_pair
@pytest.mark.parametrize("push", PUSHES)
@pytest.mark.parametrize("scale", [1e4, 1e6, 1e9])
@pytest.mark.parametrize("engine", ["book_keeping", "hooks"])
def test_a_record_whose_positions_cancel_stays_within_the_clip(
    engine: ClippingEngine, push: str, scale: float
) -> None:
    """What is measured is what is added, even where both are rounding errors."""
    for seed in range(20):
        torch.manual_seed(seed)
        layer = nn.Linear(31, 37, bias=False)
        pushes = PUSHES[push](*torch.randn(2, 37) * scale)
        x = torch.randn(1, 1, 31).expand(1, len(pushes), 31)
        total = clipped_sum(engine, layer, lambda m, x=x, g=pushes: (m(x) * g).sum((1, 2)))
        assert float(total.norm()) <= CLIP * (1 + 1e-5)


def test_without_the_safeguard_such_a_record_would_pass_the_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gradients, "CANCELLATION", math.inf)
    with pytest.raises(AssertionError):
        test_a_record_whose_positions_cancel_stays_within_the_clip("book_keeping", "nearly", 1e6)


def test_a_cancelling_record_can_be_dropped() -> None:
    x, g = (torch.cat((part, torch.randn_like(part))) for part in cancelling_record())
    products, total = Products(x, g), torch.zeros(37, 31)
    products.squared_norms()
    products.add_to(total, torch.ones(2))
    expected = (g.double().mT @ x.double()).sum(0)
    torch.testing.assert_close(total.double(), expected, rtol=1e-4, atol=1e-2)
    products.clear(torch.tensor([True, False]))
    total.zero_()
    products.add_to(total, torch.ones(2))
    torch.testing.assert_close(total, g[1].mT @ x[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1536, 384), (384, 1536), (31, 30_011), (512, 256, 3, 3)])
def test_norms_of_large_matrices_are_not_short(shape: tuple[int, ...]) -> None:
    values = torch.full((2, *shape), 0.1)
    values[1] = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    exact = values.double().flatten(1).square().sum(1)
    torch.testing.assert_close(Dense(values).squared_norms().double(), exact, rtol=1e-4, atol=0)


@pytest.mark.every_pair
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("excess", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("positions", [1, 2, 13])
def test_a_huge_record_adds_no_more_than_the_clip(
    engine: ClippingEngine, excess: float, positions: int
) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2))
    x = torch.randn(4, positions, 3)
    scale = torch.tensor([excess, 0.0, 0.0, 0.0])
    total = clipped_sum(engine, module, lambda m: (m(x) * 100).square().sum((1, 2)) * scale)
    assert CLIP * (1 - 1e-5) <= float(total.norm()) <= CLIP * (1 + 1e-5)


def small_model(share_layers: bool = False) -> TextClassifier:
    torch.manual_seed(0)
    model = TextClassifier(
        ModelConfig(
            encoder="scratch", vocab_size=23, dim=12, layers=2, heads=3, hidden_dim=7,
            max_length=13, num_labels=5, share_layers=share_layers,
            attention=AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.5),
        )
    )  # fmt: skip
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.5)
    return model


def text_losses(
    seed: int, keep: Tensor, precision: torch.dtype | None = None
) -> Callable[[nn.Module], Tensor]:
    """Losses of the kept ones among random texts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 23, (len(keep), 11), generator=generator)
    mask = torch.arange(11) < torch.randint(2, 12, (len(keep), 1), generator=generator)
    labels = torch.randint(0, 5, (len(keep),), generator=generator)

    def losses(module: nn.Module) -> Tensor:
        with torch.autocast("cpu", precision, enabled=precision is not None):
            logits = module(ids[keep], mask[keep])
        return F.cross_entropy(logits.float() * 3, labels[keep], reduction="none")

    return losses


@pytest.mark.parametrize("engine", ENGINES)
def test_sensitivity(engine: ClippingEngine) -> None:
    """One record less moves the sum by C at most, to rounding."""
    model, moved = small_model(), []
    for seed in range(4):
        other = text_losses(100 + seed, torch.ones(3, dtype=torch.bool))
        keep = torch.ones(5, dtype=torch.bool)
        whole = clipped_sum(engine, model, text_losses(seed, keep), other)
        keep[seed % 5] = False
        without = clipped_sum(engine, model, text_losses(seed, keep), other)
        moved.append(float((whole - without).norm()))
    assert max(moved) <= CLIP * (1 + 1e-4)
    assert max(moved) > 0.99 * CLIP  # the clip is met, or nothing would be tested


@pytest.mark.parametrize(
    ("engine", "traffic"),
    [("book_keeping", 0), ("book_keeping", 30), ("book_keeping", math.inf), ("hooks", 30)],
)
@pytest.mark.parametrize("share_layers", [False, True])
def test_one_record_in_bfloat16_stays_within_the_clip(
    monkeypatch: pytest.MonkeyPatch, engine: ClippingEngine, traffic: float, share_layers: bool
) -> None:
    monkeypatch.setattr(gradients, "TRAFFIC", traffic)
    model, one = small_model(share_layers), torch.ones(1, dtype=torch.bool)
    for seed in range(15):
        total = clipped_sum(engine, model, text_losses(seed, one, torch.bfloat16))
        assert float(total.norm()) <= CLIP * (1 + 1e-5)


def test_one_wide_record_in_bfloat16_stays_within_the_clip() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(67, 131), nn.Tanh(), nn.Linear(131, 5))
        x = torch.randn(1, 3, 67) * 10

        def losses(module: nn.Module, x: Tensor = x) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                output = module(x)
            return output.float().sum((1, 2))

        assert float(clipped_sum("book_keeping", module, losses).norm()) <= CLIP * (1 + 1e-5)


def test_autocast_around_everything_does_not_round_the_norms() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        module = nn.Linear(67, 131, bias=False)
        x = torch.randn(1, 3, 67) * 10
        with torch.autocast("cpu", torch.bfloat16):
            total = clipped_sum(
                "book_keeping", module, lambda m, x=x: m(x).float().square().sum((1, 2))
            )
        assert float(total.norm()) <= CLIP * (1 + 1e-5)


def test_ghost_refuses_half_precision() -> None:
    losses = text_losses(0, torch.ones(3, dtype=torch.bool), torch.bfloat16)
    with pytest.raises(InputError, match="ghost needs float32"):
        clipped_sum("ghost", small_model(), losses)


class Mixed(nn.Module):
    """Every form of gradients: products, written out, rows, sums."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 3)
        self.convolve = nn.Conv1d(3, 7, 2)
        self.group_norm = nn.GroupNorm(1, 7)
        self.linear = nn.Linear(7, 5)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Linear(5, 2)

    def forward(self, ids: Tensor, factor: Tensor) -> Tensor:
        x = self.words(ids) * factor.view(-1, 1, 1)
        x = self.group_norm(self.convolve(x.mT)).mT
        output: Tensor = self.head(self.norm(self.linear(x)).tanh().sum(1))
        return output.square().sum(1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("traffic", [0, math.inf])
def test_a_record_that_is_not_finite_changes_no_bit_of_the_others(
    monkeypatch: pytest.MonkeyPatch, bad: float, traffic: float
) -> None:
    monkeypatch.setattr(gradients, "TRAFFIC", traffic)
    torch.manual_seed(0)
    module, ids = Mixed(), torch.randint(0, 11, (5, 8))
    ones, keep = torch.ones(5), torch.tensor([True, True, False, True, True])

    def run(factor: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, int]:
        engine, totals = books(module)
        engine.accumulate(module(ids[rows], factor[rows]) * weight[rows], totals)
        engine.close()
        return torch.cat([t.flatten() for t in totals.values()]), engine.skipped_records

    everyone = torch.ones(5, dtype=torch.bool)
    broken, skipped = run(torch.where(keep, ones, bad), everyone, ones)
    silent, none_skipped = run(ones, everyone, keep.float())
    absent, _ = run(ones, keep, ones)
    assert (skipped, none_skipped) == (1, 0)
    assert torch.equal(broken, silent)
    torch.testing.assert_close(broken, absent, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_dropped(bad: float) -> None:
    torch.manual_seed(0)
    module, ids = Mixed(), torch.randint(0, 11, (3, 8))
    engine, totals = books(module)
    engine.accumulate(module(ids, torch.ones(3)) * torch.tensor([1.0, bad, 1.0]), totals)
    engine.close()
    assert engine.skipped_records == 1
    assert 0 < length(totals) <= 2 * CLIP * (1 + 1e-5)


def test_a_batch_of_nothing_but_broken_records_adds_nothing() -> None:
    module = Mixed()
    engine, totals = books(module)
    losses = module(torch.zeros(3, 8, dtype=torch.int64), torch.full((3,), math.nan))
    engine.accumulate(losses, totals)
    engine.close()
    assert engine.skipped_records == 3
    assert length(totals) == 0


# What happened before


def test_losses_may_be_computed_before_any_is_accumulated() -> None:
    """Each of the two micro-batches is clipped, though their forward passes came together."""
    torch.manual_seed(0)
    for layer in (nn.Linear(3, 2), nn.LayerNorm(3)):
        x = 100 * torch.randn(1, 5, 3)
        engine, totals = books(layer)
        first, second = (layer(x).square().sum((1, 2)) for _ in range(2))
        engine.accumulate(first, totals)
        assert length(totals) == pytest.approx(CLIP, rel=1e-5)
        engine.accumulate(second, totals)
        engine.close()
        assert length(totals) == pytest.approx(2 * CLIP, rel=1e-5)


def test_a_second_backward_pass_of_a_shared_layer_is_clipped_too() -> None:
    torch.manual_seed(0)
    module, x = nn.Linear(3, 3), 100 * torch.randn(1, 5, 3)
    engine, totals = books(module)
    losses = [module(module(x)).square().sum((1, 2)) for _ in range(3)]
    for number, loss in enumerate(losses, start=1):
        engine.accumulate(loss, totals)
        assert length(totals) == pytest.approx(number * CLIP, rel=1e-5)
    engine.close()


@pytest.mark.parametrize("share_layers", [False, True])
def test_an_abandoned_forward_pass_leaves_no_trace(share_layers: bool) -> None:
    model = small_model(share_layers)
    losses = text_losses(1, torch.ones(4, dtype=torch.bool))
    expected = clipped_sum("book_keeping", model, losses)

    def abandon(module: nn.Module) -> Tensor:
        for seed in range(3):
            text_losses(seed, torch.ones(2, dtype=torch.bool))(module)
        return losses(module)

    torch.testing.assert_close(
        clipped_sum("book_keeping", model, abandon), expected, rtol=1e-5, atol=1e-7
    )


def test_abandoned_forward_passes_hold_no_memory() -> None:
    """Their graphs are freed, and the books are as large after many as after some."""

    def held() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    module, ids = Mixed(), torch.randint(0, 11, (5, 8))
    engine, totals = books(module)
    counts = []
    for abandoned in (30, 60):
        for _ in range(abandoned):
            module(ids, torch.ones(5))
        engine.accumulate(module(ids, torch.ones(5)), totals)
        counts.append(held())
    engine.close()
    assert counts[0] == counts[1]


def test_evaluation_during_training_changes_nothing() -> None:
    model = small_model()
    losses = text_losses(1, torch.ones(4, dtype=torch.bool))
    expected = clipped_sum("book_keeping", model, losses)

    def evaluate_too(module: nn.Module) -> Tensor:
        other = text_losses(2, torch.ones(3, dtype=torch.bool))
        with torch.no_grad():
            before = other(module)
        with torch.inference_mode():
            assert torch.equal(other(module), before)
        result = losses(module)
        with torch.no_grad():
            other(module)
        return result

    assert torch.equal(clipped_sum("book_keeping", model, evaluate_too), expected)


def test_an_attribution_during_training_changes_nothing() -> None:
    """A backward pass by the inputs, between a forward pass and its ``accumulate``."""
    model = small_model()
    losses = text_losses(1, torch.ones(4, dtype=torch.bool))
    expected = clipped_sum("book_keeping", model, losses)
    gradients_by_inputs = []

    def attribute() -> Tensor:
        x = torch.randn(4, 5, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
        mask = torch.ones(4, 5, dtype=torch.bool)
        return torch.autograd.grad(model.run(x, mask).outputs.square().sum(), x)[0]

    def attribute_too(module: nn.Module) -> Tensor:
        result = losses(module)
        gradients_by_inputs.append(attribute())
        return result

    measured = clipped_sum("book_keeping", model, attribute_too)
    torch.testing.assert_close(measured, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradients_by_inputs[0], attribute())


def test_an_empty_micro_batch_adds_nothing() -> None:
    for engine in ENGINES:
        module = nn.Linear(3, 2)
        assert not clipped_sum(engine, module, lambda m: m(torch.empty(0, 3)).sum(1)).any()


def test_a_copy_of_the_module_computes_with_its_own_weights() -> None:
    module, x = nn.Sequential(nn.Linear(3, 2)), torch.randn(5, 3)
    engine, _ = books(module)
    copied = copy.deepcopy(module)
    before = module(x).detach().clone()
    nn.init.zeros_(module[0].weight)
    with torch.no_grad():
        assert torch.equal(copied(x), before)
        assert not torch.equal(module(x), before)
    engine.close()


def test_the_outputs_are_those_of_the_module_itself() -> None:
    model = small_model()
    losses = text_losses(0, torch.ones(4, dtype=torch.bool))
    expected = losses(model)
    engine, _ = books(model)
    assert torch.equal(losses(model), expected)
    with torch.no_grad():
        assert torch.equal(losses(model), expected)
    engine.close()
    assert torch.equal(losses(model), expected)


def test_recomputed_activations(reference: Any) -> None:
    """Checkpointing runs a layer's forward pass a second time, inside the backward pass."""

    class Checkpointed(nn.Module):
        def __init__(self, reentrant: bool) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.reentrant = reentrant

        def block(self, x: Tensor) -> Tensor:
            return torch.tanh(self.second(torch.tanh(self.second(x))))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for _ in range(2):
                x = checkpoint(self.block, x, use_reentrant=self.reentrant)
            return x.square().sum((1, 2))

    torch.manual_seed(0)
    x, plain = torch.randn(5, 7, 3), Checkpointed(False)
    expected = reference.by_loop(plain, lambda m, rows: m(x[rows]), 5, reference.flat(CLIP))
    for reentrant in (False, True):
        plain.reentrant = reentrant
        measured = clipped_sum("book_keeping", plain, lambda m: m(x))
        assert (measured - expected.total).norm() <= 1e-6 * expected.total.norm()
