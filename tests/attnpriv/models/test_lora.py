"""Adapters and biases: what is trained, and that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.errors import InputError
from attnpriv.models.lora import LowRankLinear, add_adapters, merge_adapters
from attnpriv.models.text import TextClassifier

LINEARS = ("attention.qkv", "attention.output", "expand", "contract")
NORMS = ("attention_norm", "output_norm")
HEAD = {"head.weight", "head.bias"}


def make_model(share_layers: bool = False) -> TextClassifier:
    torch.manual_seed(0)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=23,
        dim=12,
        layers=3,
        heads=3,
        hidden_dim=7,
        max_length=11,
        num_labels=5,
        attention=AttentionConfig(2.0, 1.0, "clamp", "additive", temperature_floor=0.5),
        share_layers=share_layers,
    )
    model = TextClassifier(config)
    torch.nn.init.normal_(model.head.weight)
    return model


def make_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, 23, (7, 11), generator=generator)
    return ids, torch.arange(11) < torch.randint(2, 12, (7, 1), generator=generator)


def train_adapters(model: TextClassifier) -> None:
    """Move every weight that may move, as far as its start is from zero."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)


def trained(model: TextClassifier) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def adapters(*blocks: int) -> set[str]:
    return {
        f"blocks.{block}.{linear}.{part}.weight"
        for block in blocks
        for linear in LINEARS
        for part in ("down", "up")
    }


def biases(*blocks: int) -> set[str]:
    return {
        "embedding_norm.bias",
        *(f"blocks.{block}.{layer}.bias" for block in blocks for layer in (*LINEARS, *NORMS)),
    }


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("head", set()),
        ("bias", biases(0, 1, 2)),
        ("lora:2", adapters(0, 1, 2)),
        ("lora:2:last:1", adapters(2)),
        ("lora:7:last:3", adapters(0, 1, 2)),
    ],
)
def test_what_is_trained(trainable: str, expected: set[str]) -> None:
    model = make_model()
    model.select_trainable(trainable)
    assert trained(model) == HEAD | expected


@pytest.mark.parametrize(
    ("trainable", "expected"), [("bias", biases(0)), ("lora:2", adapters(0)), ("head", set())]
)
def test_what_is_trained_of_shared_layers(trainable: str, expected: set[str]) -> None:
    model = make_model(share_layers=True)
    model.select_trainable(trainable)
    assert trained(model) == HEAD | expected


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_how_much_is_trained(rank: int) -> None:
    """R·(p + d) numbers a linear layer: qkv, output, expand and contract of dim 12, hidden 7."""
    model = make_model()
    model.select_trainable(f"lora:{rank}:last:2")
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert count == 2 * rank * (48 + 24 + 19 + 19) + (12 + 1) * 5


def test_adapters_change_nothing_before_the_first_step() -> None:
    model, batch = make_model(), make_batch()
    before = model(*batch)
    add_adapters(model, 2)
    assert sum(isinstance(m, LowRankLinear) for m in model.modules()) == 12
    assert torch.equal(model(*batch), before)


def test_adapters_start_as_the_global_seed_says() -> None:
    def start(seed: int) -> list[Tensor]:
        model = make_model()
        torch.manual_seed(seed)
        model.select_trainable("lora:2")
        return [m.down.weight for m in model.modules() if isinstance(m, LowRankLinear)]

    assert all(map(torch.equal, start(1), start(1)))
    assert not any(map(torch.equal, start(1), start(2)))
    assert all(0 < w.abs().max() <= w.shape[1] ** -0.5 for w in start(1))


def test_down_learns_once_up_is_not_zero() -> None:
    model, batch = make_model(), make_batch()
    model.select_trainable("lora:2")
    layers = [m for m in model.modules() if isinstance(m, LowRankLinear)]
    for moved in (False, True):
        model.zero_grad()
        model(*batch).logsumexp(1).sum().backward()
        for layer in layers:
            assert layer.up.weight.grad is not None
            assert layer.down.weight.grad is not None
            assert layer.up.weight.grad.any()
            assert bool(layer.down.weight.grad.any()) is moved
            assert layer.base.weight.grad is None
            torch.nn.init.normal_(layer.up.weight)


@pytest.mark.parametrize(
    ("trainable", "share_layers", "blocks"),
    [
        ("lora:1", False, (0, 1, 2)),
        ("lora:7", False, (0, 1, 2)),
        ("lora:5:last:1", False, (2,)),
        ("lora:3", True, (0,)),
    ],
)
def test_merged_layers_are_ordinary_ones_with_the_same_outputs(
    trainable: str, share_layers: bool, blocks: tuple[int, ...]
) -> None:
    model, batch = make_model(share_layers), make_batch()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.select_trainable(trainable)
    train_adapters(model)
    adapted = model(*batch)
    merge_adapters(model)
    merged = model.state_dict()
    assert [(n, t.shape) for n, t in merged.items()] == [(n, t.shape) for n, t in plain.items()]
    assert not any(isinstance(m, LowRankLinear) for m in model.modules())
    torch.testing.assert_close(model(*batch), adapted, rtol=1e-5, atol=1e-5)
    changed = {name for name in plain if not torch.equal(plain[name], merged[name])}
    assert changed == HEAD | {f"blocks.{b}.{linear}.weight" for b in blocks for linear in LINEARS}


@pytest.mark.parametrize("later", ["head", "bias", "last:1", "lora:3", "all"])
def test_a_later_choice_merges_the_adapters_of_an_earlier_one(later: str) -> None:
    model, fresh, batch = make_model(), make_model(), make_batch()
    model.select_trainable("lora:2")
    train_adapters(model)
    before = model(*batch)
    model.select_trainable(later)
    fresh.select_trainable(later)
    assert trained(model) == trained(fresh)
    assert model.state_dict().keys() == fresh.state_dict().keys()
    torch.testing.assert_close(model(*batch), before, rtol=1e-5, atol=1e-5)


def test_the_update_is_the_product_of_down_and_up() -> None:
    layer = LowRankLinear(torch.nn.Linear(5, 3, dtype=torch.float64), 2)
    torch.nn.init.normal_(layer.up.weight)
    x = torch.randn(7, 11, 5, dtype=torch.float64)
    expected = layer.base(x) + x @ (layer.up.weight @ layer.down.weight).T
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer.merge()(x), expected)


@pytest.mark.parametrize(
    ("trainable", "message"),
    [
        ("lora:0", "lora:R, .* got 'lora:0'"),
        ("lora:x", "lora:R, .* got 'lora:x'"),
        ("lora:2:last:4", "at most last:3, got 'last:4'"),
        ("lora:8", r"rank in \[1, 7\].* got 8"),
        ("lora:8:last:1", r"rank in \[1, 7\].* got 8"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(trainable: str, message: str) -> None:
    model = make_model()
    names = set(model.state_dict())
    with pytest.raises(InputError, match=message):
        model.select_trainable(trainable)
    assert set(model.state_dict()) == names
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("rank", [-1, 0, 8])
def test_adapters_refuse_a_rank_out_of_range(rank: int) -> None:
    with pytest.raises(InputError, match=rf"rank in \[1, 7\].* got {rank}"):
        add_adapters(make_model(), rank)
