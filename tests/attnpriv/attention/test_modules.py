"""The layers: what they compute, what they learn, and that the floor holds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from attnpriv.attention import (
    AttentionPooling,
    HardenedAttention,
    MultiHeadCrossAttention,
    MultiHeadSelfAttention,
    attention_weights,
)
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

LEARNED = AttentionConfig(2.0, 1.3, "norm", temperature_floor=0.5)
ADDITIVE = AttentionConfig(2.0, 1.3, "tanh", score="additive")
CONFIGS = [AttentionConfig(), AttentionConfig(2.0, 1.3, "clamp"), LEARNED, ADDITIVE]


def make_mask() -> torch.Tensor:
    return torch.tensor([[True] * 7, [True] * 3 + [False] * 4])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_weights_on_request_change_no_output(config: AttentionConfig) -> None:
    torch.manual_seed(0)
    x, context = torch.randn(2, 7, 12), torch.randn(2, 7, 5)
    calls = [
        (MultiHeadSelfAttention(12, 3, config), (x,), (2, 3, 7, 7)),
        (MultiHeadSelfAttention(12, 3, config, causal=True), (x,), (2, 3, 7, 7)),
        (MultiHeadCrossAttention(12, 3, config, context_dim=5), (x[:, :4], context), (2, 3, 4, 7)),
        (AttentionPooling(12, 3, config), (x,), (2, 3, 1, 7)),
    ]
    for layer, inputs, shape in calls:
        with_weights, weights = layer(*inputs, make_mask(), need_weights=True)
        without, none = layer(*inputs, make_mask())
        assert none is None
        assert weights.shape == shape
        assert not weights[1, :, :, 3:].any()
        torch.testing.assert_close(weights.sum(-1), torch.ones(shape[:-1]))
        torch.testing.assert_close(with_weights, without, rtol=1e-5, atol=1e-6)


def test_cross_attention_equals_multihead_attention_of_torch() -> None:
    torch.manual_seed(0)
    ours = MultiHeadCrossAttention(12, 3, AttentionConfig())
    theirs = nn.MultiheadAttention(12, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": torch.cat([ours.query.weight, ours.key_value.weight]),
            "in_proj_bias": torch.cat([ours.query.bias, ours.key_value.bias]),
            "out_proj.weight": ours.output.weight,
            "out_proj.bias": ours.output.bias,
        }
    )
    x, context, mask = torch.randn(2, 5, 12), torch.randn(2, 7, 12), make_mask()
    expected, _ = theirs(x, context, context, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, context, mask)[0], expected, rtol=1e-5, atol=1e-6)


def test_a_causal_layer_does_not_see_what_comes_later() -> None:
    torch.manual_seed(0)
    layer = MultiHeadSelfAttention(12, 3, LEARNED, causal=True)
    x = torch.randn(2, 7, 12)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = (layer(inputs, None)[0] for inputs in (x, changed))
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=0)
    assert not torch.equal(before[:, 4:], after[:, 4:])


def test_pooling_of_equal_tokens_is_their_value_whatever_the_query() -> None:
    torch.manual_seed(0)
    layer = AttentionPooling(12, 3, LEARNED)
    token = torch.randn(2, 1, 12)
    pooled, _ = layer(token.expand(2, 7, 12), make_mask())
    expected = layer.key_value(token).chunk(2, dim=-1)[1].squeeze(1)
    torch.testing.assert_close(pooled, expected, rtol=1e-5, atol=1e-6)


def test_learned_temperatures_start_where_they_are_told() -> None:
    core = HardenedAttention(LEARNED, heads=3, head_dim=4)
    assert core.temperatures() == pytest.approx([2.0] * 3, rel=1e-6)
    fixed = HardenedAttention(AttentionConfig(2.0), heads=3, head_dim=4)
    assert fixed.temperatures() == [2.0] * 3
    assert not list(fixed.parameters())


@pytest.mark.parametrize("raw", [-1e4, -90.0, -20.0, 0.0, 1e4])
@pytest.mark.parametrize("floor", [0.1, 0.5, 1 / 3])
def test_no_training_takes_a_temperature_below_its_floor(raw: float, floor: float) -> None:
    config = AttentionConfig(2.0, 1.3, "norm", temperature_floor=floor)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        core = HardenedAttention(config, heads=3, head_dim=4).to(dtype)
        assert core.raw_temperature is not None
        nn.init.constant_(core.raw_temperature.weight, raw)
        assert min(core.temperatures()) >= floor


@pytest.mark.parametrize("floor", [0.1, 1 / 3, 0.7, 1e-7])
def test_no_default_dtype_takes_a_temperature_below_its_floor(floor: float) -> None:
    config = AttentionConfig(2.0, 1.3, "norm", temperature_floor=floor)
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            core = HardenedAttention(config, heads=3, head_dim=4)
            nn.init.constant_(core.raw_temperature.weight, -1e4)
            assert min(core.temperatures()) >= floor
    finally:
        torch.set_default_dtype(before)


def test_heads_learn_temperatures_of_their_own() -> None:
    """Sharper rows pay for the first head, flatter ones for the second."""
    torch.manual_seed(0)
    core = HardenedAttention(LEARNED, heads=2, head_dim=4)
    q, k = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 7, 4)
    optimizer = torch.optim.SGD(core.parameters(), lr=1.0)
    for _ in range(30):
        optimizer.zero_grad()
        largest = core(q, k, k, need_weights=True)[1].amax(-1)
        (largest[:, 1].mean() - largest[:, 0].mean()).backward()
        optimizer.step()
    sharp, flat = core.temperatures()
    assert 0.5 <= sharp < 1.9
    assert flat > 2.1


def test_learned_temperatures_reach_the_weights() -> None:
    torch.manual_seed(0)
    core = HardenedAttention(LEARNED, heads=2, head_dim=4)
    assert core.raw_temperature is not None
    nn.init.normal_(core.raw_temperature.weight)
    q, k = torch.randn(3, 2, 5, 4), torch.randn(3, 2, 7, 4)
    weights = core(q, k, k, need_weights=True)[1]
    for head, tau in enumerate(core.temperatures()):
        alone = AttentionConfig(tau, 1.3, "norm")
        expected = attention_weights(q[:, [head]], k[:, [head]], None, alone)
        torch.testing.assert_close(weights[:, [head]], expected, rtol=1e-5, atol=1e-6)


def test_hooks_see_the_weights() -> None:
    layer = MultiHeadSelfAttention(12, 3, AttentionConfig())
    seen = []
    layer.core.weights.register_forward_hook(lambda *args: seen.append(args[-1]))
    weights = layer(torch.randn(2, 7, 12), make_mask(), need_weights=True)[1]
    assert seen[0] is weights


@pytest.mark.parametrize("heads", [0, 5])
def test_heads_that_do_not_divide_the_width_are_refused(heads: int) -> None:
    with pytest.raises(InputError, match=f"expected heads to divide dim 12, got {heads}"):
        MultiHeadSelfAttention(12, heads, AttentionConfig())


@pytest.mark.parametrize("floor", [0.0, -1.0, 2.0, 3.0, math.nan, math.inf])
def test_floors_outside_their_range_are_refused(floor: float) -> None:
    with pytest.raises(InputError, match="expected temperature_floor > 0 and below"):
        AttentionConfig(2.0, 1.0, temperature_floor=floor)
