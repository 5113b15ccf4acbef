"""Attention of ``torch.nn`` before and after ``harden``: parity without a clip, bounds with one."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, harden
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.attnpriv.attention.finished_models import (
    CLIPPED,
    HEADS,
    HIDDEN,
    KINDS,
    MASK,
    PLAIN,
    TK,
    TQ,
    WIDTH,
    causal,
    close,
    encoder,
    multihead,
    multihead_inputs,
    within_bounds,
)

pytestmark = pytest.mark.usefixtures("quiet_transformers")

generator = torch.Generator().manual_seed(3)
BLOCKED = torch.rand(TQ, TK, generator=generator) < 0.4
BLOCKED[:, 0] = False
BLOCKED_3D = torch.rand(2 * HEADS, TQ, TK, generator=generator) < 0.4
BLOCKED_3D[:, :, 0] = False


def as_float(mask: Tensor) -> Tensor:
    return torch.zeros(mask.shape).masked_fill(mask, -math.inf)


MASKS: dict[str, dict[str, Any]] = {
    "none": {},
    "2-D": {"attn_mask": BLOCKED},
    "2-D float": {"attn_mask": as_float(BLOCKED)},
    "3-D": {"attn_mask": BLOCKED_3D},
    "3-D float": {"attn_mask": as_float(BLOCKED_3D)},
    "padding": {"key_padding_mask": HIDDEN},
    "both": {"attn_mask": BLOCKED_3D, "key_padding_mask": HIDDEN},
    "both float": {"attn_mask": as_float(BLOCKED), "key_padding_mask": as_float(HIDDEN)},
    "weights of heads": {"attn_mask": BLOCKED, "average_attn_weights": False},
    "no weights": {"key_padding_mask": HIDDEN, "need_weights": False},
}


@pytest.mark.every_value
@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_multihead_attention_without_a_clip_is_that_of_torch(kind: str, masks: str) -> None:
    module, inputs, options = multihead(kind), multihead_inputs(kind), MASKS[masks]
    expected, expected_weights = module(*inputs, **options)
    out, weights = harden(module, PLAIN)(*inputs, **options)
    close(out, expected)
    assert (weights is None) == (expected_weights is None)
    if weights is not None:
        close(weights, expected_weights)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_causal_self_attention_is_that_of_torch(need_weights: bool, padded: bool) -> None:
    module, x = multihead("batch_first"), torch.randn(2, 7, WIDTH)
    options = {"attn_mask": causal(7), "is_causal": True, "need_weights": need_weights}
    if padded:
        options["key_padding_mask"] = HIDDEN
    expected, expected_weights = module(x, x, x, **options)
    out, weights = harden(module, PLAIN)(x, x, x, **options)
    close(out, expected)
    if need_weights:
        close(weights, expected_weights)


@pytest.mark.parametrize("kind", ["plain", "batch_first", "both extra keys"])
def test_unbatched_inputs_are_those_of_torch(kind: str) -> None:
    module = multihead(kind)
    inputs = [x[:, 0] for x in multihead_inputs(kind)]
    if kind == "batch_first":  # which torch ignores for inputs without a batch
        inputs = [x[0] for x in multihead_inputs(kind)]
    for options in (
        {"attn_mask": BLOCKED, "key_padding_mask": HIDDEN[1]},
        {"attn_mask": BLOCKED_3D[:HEADS], "average_attn_weights": False},
        {"need_weights": False},
    ):
        expected, expected_weights = module(*inputs, **options)
        out, weights = harden(copy.deepcopy(module), PLAIN)(*inputs, **options)
        close(out, expected)
        assert (weights is None) == (expected_weights is None)
        if weights is not None:
            close(weights, expected_weights)


@pytest.mark.every_value
@pytest.mark.parametrize("config", CLIPPED, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_multihead_weights_keep_their_bounds(kind: str, config: AttentionConfig) -> None:
    module, inputs = multihead(kind), multihead_inputs(kind)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "bias_k"):
                parameter *= 50
    options = {"attn_mask": BLOCKED_3D, "key_padding_mask": HIDDEN, "average_attn_weights": False}
    visible = ~(BLOCKED_3D.view(2, HEADS, TQ, TK) | HIDDEN[:, None, None])
    _, plain = module(*inputs, **options)
    extra = plain.shape[-1] - TK
    assert extra == ("bias" in kind and kind != "no bias") + ("zero" in kind) + 2 * (
        "extra" in kind
    )
    visible = nn.functional.pad(visible, (0, extra), value=True)
    with pytest.raises(AssertionError):  # the test can tell
        within_bounds(plain, visible, config)
    _, weights = harden(module, config)(*inputs, **options)
    within_bounds(weights, visible, config)


def test_attention_dropout_is_not_applied() -> None:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5, batch_first=True)
    x = torch.randn(2, 7, WIDTH)
    expected, _ = module.eval()(x, x, x)
    out, weights = harden(module.train(), PLAIN)(x, x, x)
    assert module.core.training
    close(out, expected)
    close(weights.sum(-1), torch.ones(2, 7))


def test_a_query_that_sees_no_key_gets_zeros() -> None:
    module = harden(multihead("batch_first"), PLAIN)
    x, mask = torch.randn(2, 7, WIDTH), torch.ones(7, 7, dtype=torch.bool)
    out, weights = module(x, x, x, attn_mask=mask)
    close(out, module.out_proj.bias.expand(2, 7, WIDTH))
    assert not weights.any()


@pytest.fixture
def no_fused_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused kernel computes plain attention: none may run."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a fused kernel ran")

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", fail)
    monkeypatch.setattr(torch, "_native_multi_head_attention", fail)


@pytest.mark.every_pair
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("hidden", [None, HIDDEN], ids=["whole", "padded"])
@pytest.mark.parametrize("mask", [None, causal(7)], ids=["all", "causal"])
def test_an_encoder_without_a_clip_is_that_of_torch(
    training: bool, hidden: Tensor | None, mask: Tensor | None
) -> None:
    model, x = encoder().train(training), torch.randn(2, 7, 12)
    seen = MASK.bool() if hidden is not None else torch.ones(2, 7, dtype=torch.bool)
    with torch.set_grad_enabled(training):
        expected = model(x, hidden, mask)
        close(harden(model, PLAIN)(x, hidden, mask)[seen], expected[seen])
    assert len([m for m in model.modules() if isinstance(m, HardenedAttention)]) == 3
    assert model.attention is model.again


@pytest.mark.parametrize("hidden", [None, HIDDEN], ids=["whole", "padded"])
@pytest.mark.usefixtures("no_fused_kernels")
def test_inference_does_not_bypass_the_hardening(hidden: Tensor | None) -> None:
    model, x = encoder().eval(), torch.randn(2, 7, 12)
    with torch.no_grad(), pytest.raises(RuntimeError, match="a fused kernel ran"):
        model.encoder(x)
    harden(model, CLIPPED[0])
    expected = model(x, hidden)  # with gradients, for which there is no fused kernel
    with torch.no_grad():
        close(model(x, hidden), expected)
        close(model.encoder.layers[0](x), model.encoder.layers[0].train()(x))
    with torch.inference_mode():
        close(model(x, hidden), expected)


def test_the_hardening_is_seen_in_inference() -> None:
    model, x = encoder().eval(), 50 * torch.randn(2, 7, 12)
    with torch.no_grad():
        plain = model.encoder(x)
        assert (harden(model, CLIPPED[0]).encoder(x) - plain).abs().max() > 1e-2


@pytest.mark.usefixtures("no_fused_kernels")
def test_a_hardened_layer_stays_hardened_in_other_hands() -> None:
    layer = harden(nn.TransformerEncoderLayer(12, 2, 17, batch_first=True), CLIPPED[0]).eval()
    with pytest.warns(UserWarning, match="_qkv_same_embed_dim was not True"):
        model = nn.TransformerEncoder(layer, 2).eval()
    with torch.no_grad():
        model(torch.randn(2, 7, 12), src_key_padding_mask=HIDDEN)
    with pytest.raises(InputError, match="fused kernel cannot be used with hardened"):
        layer.self_attn.merge_masks(None, None, torch.randn(2, 7, 12))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_are_refused() -> None:
    model = encoder().encoder.eval()
    for layer in model.layers:
        harden(layer, PLAIN)  # the encoder around it does not know
    with torch.no_grad(), pytest.raises(InputError, match="expected plain tensors, got a nested"):
        model(torch.randn(2, 7, 12), src_key_padding_mask=HIDDEN)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_a_whole_transformer_is_that_of_torch(batch_first: bool, training: bool) -> None:
    torch.manual_seed(0)
    model = nn.Transformer(12, 2, 1, 2, 17, 0.0, batch_first=batch_first).train(training)
    inputs = [torch.randn(2, t, 12) for t in (7, 5)]
    if not batch_first:
        inputs = [x.transpose(0, 1) for x in inputs]
    options = {
        "tgt_mask": causal(5),
        "tgt_is_causal": True,
        "src_key_padding_mask": HIDDEN,
        "memory_key_padding_mask": HIDDEN,
    }
    with torch.set_grad_enabled(training):
        expected = model(*inputs, **options)
        close(harden(model, PLAIN)(*inputs, **options), expected)
    assert len([m for m in model.modules() if isinstance(m, HardenedAttention)]) == 5


def test_the_module_stays_what_it_was() -> None:
    model = encoder()
    keys, attention, parameters = (
        list(model.state_dict()),
        model.attention,
        list(model.parameters()),
    )
    assert harden(model, CLIPPED[0]) is model
    assert list(model.state_dict()) == keys
    assert model.attention is attention
    assert isinstance(attention, nn.MultiheadAttention)
    assert not any(part.training for part in harden(encoder().eval(), PLAIN).modules())
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    model.load_state_dict(encoder().state_dict())


def test_hardening_again_replaces_the_configuration() -> None:
    model = harden(harden(encoder(), CLIPPED[0]), CLIPPED[3])
    cores = [part for part in model.modules() if isinstance(part, HardenedAttention)]
    assert [core.config for core in cores] == [CLIPPED[3]] * 3
    learned = [name for name in model.state_dict() if "core" in name]
    assert len(learned) == 4  # as the shared module has two names
    assert all(name.endswith("raw_temperature.weight") for name in learned)


@pytest.mark.parametrize("config", CLIPPED, ids=str)
def test_gradients_reach_every_parameter(config: AttentionConfig) -> None:
    model = harden(encoder(), config)
    x = torch.randn(2, 7, 12, requires_grad=True)
    model(x, HIDDEN).square().sum().backward()
    for tensor in (x, *model.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@pytest.mark.parametrize("config", CLIPPED, ids=str)
def test_a_deep_copy_is_hardened_and_independent(config: AttentionConfig) -> None:
    model, x = harden(encoder().eval(), config), torch.randn(2, 7, 12)
    twin = copy.deepcopy(model)
    expected = model(x, HIDDEN)
    close(twin(x, HIDDEN), expected)
    harden(model, PLAIN)
    close(twin(x, HIDDEN), expected)
