"""Finished models before and after ``harden``: parity without a clip, bounds with one."""

from __future__ import annotations

import copy
import functools
import importlib.util
import itertools
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv import guarantees as g
from attnpriv.attention import HardenedAttention, harden
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.models.pretrained import encoder_folder

transformers = pytest.importorskip("transformers")
BertSelfAttention = pytest.importorskip("transformers.models.bert.modeling_bert").BertSelfAttention

pytestmark = pytest.mark.usefixtures("quiet_transformers")

PLAIN = AttentionConfig()
CLIPPED = [
    AttentionConfig(2.0, 1.0, "clamp"),
    AttentionConfig(0.5, 1.0, "tanh"),
    AttentionConfig(2.0, 1.0, "norm"),
    AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.7),
    AttentionConfig(0.5, 1.0, "relative"),
]
SLACK = 2e-5  # of a weight in float32
HIDDEN = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])  # padding, as torch marks it
MASK = (~HIDDEN).long()  # the same, as transformers marks it
IDS = torch.arange(3, 17).reshape(2, 7)


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def within_bounds(weights: Tensor, visible: Tensor, config: AttentionConfig) -> None:
    """Weights [..., Tk], and True where a key may be seen, of a shape that broadcasts to theirs."""
    visible = visible.expand_as(weights)
    assert not weights[~visible].any()
    tau = config.temperature_floor or config.temperature
    for n in visible.sum(-1).unique().tolist():
        low, high = g.weight_bounds(config.logit_bound, tau, n)
        shown = weights[(visible.sum(-1) == n).unsqueeze(-1) & visible]
        assert shown.min() >= low * (1 - SLACK)
        assert shown.max() <= high * (1 + SLACK)


def causal(size: int) -> Tensor:
    return torch.ones(size, size, dtype=torch.bool).triu(1)


# --- torch.nn ---------------------------------------------------------------------------------

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no bias": {"bias": False},
    "other widths": {"kdim": 5, "vdim": 11, "batch_first": True},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "batch_first": True},
    "both extra keys": {"add_bias_kv": True, "add_zero_attn": True, "kdim": 5, "vdim": 11},
}
TQ, TK, HEADS, WIDTH = 3, 7, 2, 26
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


def multihead(kind: str) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **KINDS[kind])
    for parameter in module.parameters():  # some of them start at zero
        nn.init.normal_(parameter, std=0.3)
    return module


def multihead_inputs(kind: str) -> list[Tensor]:
    widths = (WIDTH, KINDS[kind].get("kdim", WIDTH), KINDS[kind].get("vdim", WIDTH))
    inputs = [torch.randn(2, t, w) for t, w in zip((TQ, TK, TK), widths, strict=True)]
    return [x if "batch_first" in KINDS[kind] else x.transpose(0, 1) for x in inputs]


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


class Encoder(nn.Module):
    """Attention at several depths, and one module in two places."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(12, 2, 17, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.again = self.attention

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        x = self.encoder(x, mask=mask, src_key_padding_mask=hidden)
        return self.again(x, x, x, key_padding_mask=hidden)[0]


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder()


@pytest.fixture
def no_fused_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fused kernel computes plain attention: none may run."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a fused kernel ran")

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", fail)
    monkeypatch.setattr(torch, "_native_multi_head_attention", fail)


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


class Subclass(nn.MultiheadAttention):
    pass


def twice(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Combines two softmaxes, under the name and in place of what computes one."""

    @functools.wraps(forward)
    def difference(*given: Any, **named: Any) -> Any:
        (first, weights), (second, _) = forward(*given, **named), forward(*given, **named)
        return 2 * first - second, weights

    return difference


def with_another_forward(module: Any) -> Any:
    module.forward = twice(module.forward)
    return module


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (nn.Linear(3, 3), PLAIN, "got a Linear with no attention of either kind"),
        (nn.MultiheadAttention(4, 2), AttentionConfig(score="additive"), "got 'additive'"),
        (nn.ModuleList([nn.MultiheadAttention(4, 2), Subclass(4, 2)]), PLAIN, "subclass Subclass"),
        (with_another_forward(nn.MultiheadAttention(4, 2, kdim=3)), PLAIN, "one whose forward was"),
    ],
)
def test_what_cannot_be_hardened_is_refused(
    model: nn.Module, config: AttentionConfig, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        harden(model, config)
    assert not any(isinstance(part, HardenedAttention) for part in model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_mask": torch.full((7, 7), 0.5)}, "expected attn_mask with .* got 0.5"),
        ({"attn_mask": torch.full((7, 7), math.nan)}, "expected attn_mask with .* got nan"),
        ({"attn_mask": torch.full((7, 7), math.inf)}, "expected attn_mask with .* got inf"),
        ({"key_padding_mask": torch.full((2, 7), -1e4)}, "key_padding_mask with .* got -10000"),
        ({"attn_mask": torch.ones(7, 7).long()}, "bool or float attn_mask, got torch.int64"),
        ({"key_padding_mask": MASK}, "bool or float key_padding_mask, got torch.int64"),
        ({"attn_mask": causal(5)}, r"attn_mask of shape \[7, 7\] or \[4, 7, 7\], got \[5, 5\]"),
        ({"attn_mask": torch.zeros(2, 7, 7)}, r"or \[4, 7, 7\], got \[2, 7, 7\]"),
        ({"key_padding_mask": HIDDEN[:1]}, r"key_padding_mask of shape \[2, 7\], got \[1, 7\]"),
        ({"is_causal": True}, "expected an attn_mask together with is_causal=True, got none"),
        ({"key": torch.randn(7, WIDTH)}, "expected query, key and value all with two or all with"),
    ],
)
def test_calls_that_would_break_the_bounds_are_refused(
    options: dict[str, Any], message: str
) -> None:
    x = torch.randn(2, 7, WIDTH)
    module = harden(multihead("batch_first"), PLAIN)
    with pytest.raises(InputError, match=message):
        module(**{"query": x, "key": x, "value": x, **options})


# --- transformers -----------------------------------------------------------------------------

SIZES: dict[str, Any] = {
    "vocab_size": 19,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "pad_token_id": 0,
    "max_position_embeddings": 23,
}
DISTILBERT = {"vocab_size": 19, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 17}
FAMILY: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": SIZES,
    "DistilBert": DISTILBERT,
    "Electra": SIZES,
    "Albert": {**SIZES, "embedding_size": 5},
    "ModernBert": {**SIZES, "local_attention": 2, "layer_types": None},
}


def tiny(family: str, implementation: str = "eager", **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {**FAMILY[family], **changes}
    config = getattr(transformers, f"{family}Config")(**sizes, attn_implementation=implementation)
    model = getattr(transformers, f"{family}Model")(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)  # the default is so small that weights are uniform
    return model


def compare(ours: Any, theirs: Any, seen: Tensor) -> None:
    close(ours.last_hidden_state[seen], theirs.last_hidden_state[seen])
    assert len(ours.attentions) == len(theirs.attentions) == 2
    for mine, other in zip(ours.attentions, theirs.attentions, strict=True):
        close(mine.transpose(1, 2)[seen], other.transpose(1, 2)[seen])


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("family", FAMILY)
def test_a_bert_without_a_clip_is_that_of_transformers(
    family: str, implementation: str, masked: bool
) -> None:
    mask = MASK if masked else None
    reference = tiny(family)(IDS, attention_mask=mask, output_attentions=True)
    model = harden(tiny(family, implementation), PLAIN)
    seen = MASK.bool() if masked else torch.ones(2, 7, dtype=torch.bool)
    compare(model(IDS, attention_mask=mask, output_attentions=True), reference, seen)
    fused = model(IDS, attention_mask=mask)
    close(fused.last_hidden_state[seen], reference.last_hidden_state[seen])
    assert "attentions" not in fused


@pytest.mark.parametrize("config", CLIPPED, ids=str)
@pytest.mark.parametrize("family", FAMILY)
def test_weights_of_a_bert_keep_their_bounds(family: str, config: AttentionConfig) -> None:
    model = tiny(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("query", "key", "q_lin", "k_lin", "Wqkv")):
                parameter *= 50
    visible = MASK.bool()[:, None, None].expand(2, 1, 7, 7)
    layers = [visible] * 2
    if family == "ModernBert":
        distance = torch.arange(7)[:, None] - torch.arange(7)
        layers = [visible, visible & (distance.abs() <= 1)]
    calls = {"attention_mask": MASK, "output_attentions": True}
    for weights, shown in zip(harden(model, config)(IDS, **calls).attentions, layers, strict=True):
        rows = shown.any(-1)  # padded queries of a window may see nothing
        within_bounds(weights.transpose(1, 2)[rows[:, 0]], shown[:, 0][rows[:, 0]][:, None], config)


@pytest.mark.parametrize("masked", [True, False])
def test_a_causal_decoder_with_cross_attention_is_that_of_transformers(masked: bool) -> None:
    changes = {"is_decoder": True, "add_cross_attention": True}
    inputs = {"encoder_hidden_states": torch.randn(2, 5, 12), "output_attentions": True}
    if masked:
        inputs["attention_mask"] = MASK
        inputs["encoder_attention_mask"] = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    reference = tiny("Bert", **changes)(IDS, **inputs)
    model = harden(tiny("Bert", **changes), PLAIN)
    ours = model(IDS, **inputs)
    compare(ours, reference, torch.ones(2, 7, dtype=torch.bool))
    for mine, other in zip(ours.cross_attentions, reference.cross_attentions, strict=True):
        close(mine, other)
    if not masked:
        context = {"encoder_hidden_states": inputs["encoder_hidden_states"]}
        cache = model(IDS[:, :5], **context).past_key_values
        rest = model(IDS[:, 5:], past_key_values=cache, **context).last_hidden_state
        close(rest, reference.last_hidden_state[:, 5:])


def test_causality_does_not_rest_on_what_the_module_says() -> None:
    reference = tiny("Bert", is_decoder=True)(IDS).last_hidden_state
    model = harden(tiny("Bert", is_decoder=True), PLAIN)
    for layer in model.encoder.layer:
        del layer.attention.self.is_causal
    close(model(IDS).last_hidden_state, reference)


def test_causality_without_a_mask_is_honoured() -> None:
    attention = harden(tiny("Bert"), PLAIN).encoder.layer[0].attention.self
    x = torch.randn(2, 7, 12)
    assert attention(x)[1] is None
    for flag, argument in itertools.product((True, False), (True, False, None)):
        attention.is_causal = flag
        _, weights = attention(x, output_attentions=True, is_causal=argument)
        if flag if argument is None else argument:
            assert torch.equal(weights == 0, causal(7).expand_as(weights))
        else:
            assert (weights > 0).all()
    q, k = torch.randn(2, 3, 1, 4), torch.randn(2, 3, 7, 4)
    call = transformers.AttentionInterface()["attnpriv"]
    _, weights = call(attention, q, k, k, None, is_causal=True, output_attentions=True)
    assert (weights > 0).all()  # a single query is the last one


def test_four_dimensional_masks_of_both_kinds_are_honoured() -> None:
    model = harden(tiny("Bert"), PLAIN)
    visible = MASK.bool()[:, None, None].expand(2, 1, 7, 7)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    close(model(IDS, attention_mask=visible).last_hidden_state, expected)
    for least in (-math.inf, torch.finfo(torch.float32).min):
        mask = torch.zeros(visible.shape).masked_fill(~visible, least)
        close(model(IDS, attention_mask=mask).last_hidden_state, expected)


@pytest.mark.parametrize("family", FAMILY)
def test_training_of_a_bert_applies_no_attention_dropout(family: str) -> None:
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.5}
    if family in ("DistilBert", "ModernBert"):
        rates = {"dropout": 0.0, "attention_dropout": 0.5}
    if family == "ModernBert":
        rates = {"attention_dropout": 0.0}  # the same rate drops outputs
    model = tiny(family, **rates)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    hardened = harden(model, PLAIN).train()
    assert all(p.training for p in hardened.modules() if isinstance(p, HardenedAttention))
    out = hardened(IDS, attention_mask=MASK).last_hidden_state
    close(out[MASK.bool()], expected[MASK.bool()])


@pytest.mark.parametrize("config", CLIPPED, ids=str)
def test_gradients_reach_every_parameter_of_a_bert(config: AttentionConfig) -> None:
    model = harden(tiny("Bert"), config).train()
    model(IDS, attention_mask=MASK).last_hidden_state[:, 1:].square().sum().backward()
    for name, parameter in model.named_parameters():
        if "pooler" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all()
            # A constant added to every key moves all logits of a row alike.
            assert parameter.grad.any() or "key.bias" in name


def test_other_models_stay_plain_even_with_the_same_configuration() -> None:
    shared = tiny("Bert", "sdpa").config
    torch.manual_seed(0)
    models = [transformers.BertModel(shared).eval() for _ in range(2)]
    expected = models[1](IDS, attention_mask=MASK).last_hidden_state
    harden(models[0], CLIPPED[0])
    assert models[1].config is shared
    assert shared._attn_implementation == "sdpa"
    assert torch.equal(models[1](IDS, attention_mask=MASK).last_hidden_state, expected)
    assert not any(isinstance(part, HardenedAttention) for part in models[1].modules())


def test_a_deep_copy_of_a_bert_is_hardened_and_independent() -> None:
    model = harden(tiny("Bert"), CLIPPED[3])
    twin = copy.deepcopy(model)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    close(twin(IDS, attention_mask=MASK).last_hidden_state, expected)
    harden(model, PLAIN)
    close(twin(IDS, attention_mask=MASK).last_hidden_state, expected)


def test_what_is_saved_loads_as_the_plain_model(tmp_path: Path) -> None:
    model = tiny("Bert", attention_probs_dropout_prob=0.3)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    keys = list(model.state_dict())
    harden(model, CLIPPED[0]).save_pretrained(tmp_path)
    assert list(model.state_dict()) == keys
    assert "attnpriv" not in (tmp_path / "config.json").read_text()
    loaded, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert loaded.config.attention_probs_dropout_prob == 0.3
    close(loaded.eval()(IDS, attention_mask=MASK).last_hidden_state, expected)
    close(
        harden(loaded, CLIPPED[0])(IDS, attention_mask=MASK).last_hidden_state,
        model(IDS, attention_mask=MASK).last_hidden_state,
    )


LEARNED = CLIPPED[3]


def learned(model: Any) -> Any:
    """Hardened, and with temperatures as if it was trained."""
    harden(model, LEARNED)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "raw_temperature" in name:
            nn.init.normal_(parameter, generator=generator)
    return model


def temperatures(model: nn.Module) -> list[list[float]]:
    return [p.temperatures() for p in model.modules() if isinstance(p, HardenedAttention)]


@pytest.mark.parametrize("saved", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize("loaded", ["BertModel", "BertForSequenceClassification"])
@pytest.mark.parametrize("shard", ["1GB", "2KB"])
def test_learned_temperatures_survive_saving_and_loading(
    tmp_path: Path, saved: str, loaded: str, shard: str
) -> None:
    model = learned(getattr(transformers, saved)(tiny("Bert").config))
    model.save_pretrained(tmp_path, max_shard_size=shard)
    again = getattr(transformers, loaded).from_pretrained(tmp_path)
    assert temperatures(harden(again, LEARNED)) == temperatures(model)
    again.save_pretrained(tmp_path / "again")
    again = getattr(transformers, loaded).from_pretrained(tmp_path / "again")
    assert temperatures(harden(again, LEARNED)) == temperatures(model)


def test_learned_temperatures_that_would_be_lost_are_refused(tmp_path: Path) -> None:
    learned(tiny("Bert")).save_pretrained(tmp_path)

    def load() -> Any:
        return transformers.BertModel.from_pretrained(tmp_path)

    for config in (PLAIN, AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.5)):
        with pytest.raises(InputError, match="expected temperature_floor 0.7, .* delete attnpriv_"):
            harden(load(), config)
    model, other = load(), load()
    expected = model(IDS).last_hidden_state
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="expected one set of learned temperatures for encoder.l"):
        harden(model, LEARNED)
    assert torch.equal(model(IDS).last_hidden_state, expected)
    assert not temperatures(model)
    del other.config.attnpriv_temperature_floor
    assert temperatures(harden(other, LEARNED)) == [pytest.approx([2.0] * 3)] * 2


@pytest.mark.parametrize("make", [encoder, lambda: tiny("Bert")], ids=["torch", "transformers"])
def test_hardening_with_an_equal_configuration_keeps_what_was_learned(
    make: Callable[[], nn.Module],
) -> None:
    model = learned(make())
    before = temperatures(model)
    assert temperatures(harden(model, AttentionConfig(2.0, 1.0, "norm", temperature_floor=0.7)))
    assert temperatures(model) == before
    assert temperatures(
        harden(model, AttentionConfig(2.0, 0.9, "norm", temperature_floor=0.7))
    ) != (before)


def test_a_model_saved_whole_loads_where_nothing_of_this_package_was_imported(
    tmp_path: Path,
) -> None:
    model = harden(tiny("Bert"), CLIPPED[3])
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    torch.save((model, IDS, MASK, expected), tmp_path / "model.pt")
    script = (
        "import sys, torch\n"
        "model, ids, mask, expected = torch.load(sys.argv[1], weights_only=False)\n"
        "out = model(ids, attention_mask=mask).last_hidden_state\n"
        "torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Classifier(nn.Module):
    """A user's own model around a pretrained one, beside attention of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.bert = tiny("Bert")
        self.config = self.bert.config
        self.mixer = nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.bert(ids).last_hidden_state
        return self.mixer(x, x, x)[0]


def test_models_inside_models_are_found() -> None:
    model = Classifier()
    expected = model(IDS)
    close(harden(model, PLAIN)(IDS), expected)
    assert model.config is model.bert.config
    names = [name for name, part in model.named_modules() if isinstance(part, HardenedAttention)]
    layers = [f"bert.encoder.layer.{i}.attention.self.core" for i in range(2)]
    assert names == [*layers, "mixer.core"]
    headed = transformers.BertForSequenceClassification(tiny("Bert").config).eval()
    logits = headed(IDS, attention_mask=MASK).logits
    close(harden(headed, PLAIN)(IDS, attention_mask=MASK).logits, logits)


class OwnSelfAttention(BertSelfAttention):  # type: ignore[misc, valid-type]
    """May compute anything."""


class Difference(transformers.models.gpt2.modeling_gpt2.GPT2Attention):
    """Neither its name nor that of the module around it speaks of attention."""

    forward = twice(transformers.models.gpt2.modeling_gpt2.GPT2Attention.forward)


class OwnAttention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(-1) @ x.mT @ x


def gpt2_with_a_difference() -> Any:
    config = transformers.GPT2Config(vocab_size=19, n_embd=12, n_layer=2, n_head=3, n_positions=23)
    model = transformers.GPT2Model(config)
    model.h[1].attn = Difference(model.config, layer_idx=1)
    return model


def bert_with(part: str, module: Callable[[Any], nn.Module]) -> Any:
    model = tiny("Bert")
    setattr(model.encoder.layer[1].attention, part, module(model.config))
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "attention that does not ask for ours": (
        lambda: bert_with("own", lambda _: OwnAttention()),
        "goes through AttentionInterface, got OwnAttention",
    ),
    "a subclass of attention that is known": (
        lambda: bert_with("self", OwnSelfAttention),
        "known to be one softmax per call, got OwnSelfAttention from .*test_drop_in",
    ),
    "another forward of attention that is known": (
        lambda: bert_with("self", lambda config: with_another_forward(BertSelfAttention(config))),
        "got BertSelfAttention from .*modeling_bert with another forward",
    ),
    "one of the layers that combines two softmaxes": (
        gpt2_with_a_difference,
        "got Difference from .*test_drop_in",
    ),
    "another family": (
        lambda: transformers.MPNetModel(transformers.MPNetConfig(**SIZES)),
        "known to be one softmax per call, got MPNetModel from transformers.models.mpnet",
    ),
    "weights in the configuration": (
        lambda: tiny("Bert", output_attentions=True),
        "expected config.output_attentions False, got True",
    ),
    "a part of a model": (
        lambda: tiny("Bert").encoder,
        "got a BertEncoder with no attention of either kind",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_models_that_cannot_be_hardened_are_refused_unchanged(what: str) -> None:
    make, message = REFUSED[what]
    model = make()
    with pytest.raises(InputError, match=message):
        harden(model, PLAIN)
    assert not any(isinstance(part, HardenedAttention) for part in model.modules())


def test_a_class_that_was_given_another_forward_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BertSelfAttention, "forward", twice(BertSelfAttention.forward))
    model = tiny("Bert")
    with pytest.raises(InputError, match="got BertSelfAttention from .* with another forward"):
        harden(model, PLAIN)


@pytest.mark.parametrize("scaling", [0.25, 1.0, 3.0])
def test_another_scaling_of_the_logits_is_honoured_and_bounded(scaling: float) -> None:
    def scaled() -> Any:
        model = tiny("Bert")
        for layer in model.encoder.layer:
            layer.attention.self.scaling = scaling
        return model

    calls = {"attention_mask": MASK, "output_attentions": True}
    compare(harden(scaled(), PLAIN)(IDS, **calls), scaled()(IDS, **calls), MASK.bool())
    for config in CLIPPED:
        for weights in harden(scaled(), config)(IDS, **calls).attentions:
            within_bounds(weights, MASK.bool()[:, None, None], config)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_quantised_bert_is_hardened() -> None:
    """Its linear layers have no parameters, of which a device could be read."""
    plain = tiny("Bert")
    model = torch.ao.quantization.quantize_dynamic(plain, {nn.Linear}, dtype=torch.qint8)
    expected = model(IDS, attention_mask=MASK).last_hidden_state
    ours = harden(model, PLAIN)(IDS, attention_mask=MASK).last_hidden_state
    torch.testing.assert_close(ours[MASK.bool()], expected[MASK.bool()], rtol=0, atol=0.05)


def test_an_error_halfway_leaves_the_model_as_it_was() -> None:
    model = Classifier()
    expected = model(IDS)
    model.bert.pooler.config = copy.copy(model.config)
    model.bert.pooler.config.lock = threading.Lock()  # which cannot be copied
    with pytest.raises(TypeError, match="cannot pickle"):
        harden(model, CLIPPED[3])
    assert torch.equal(model(IDS), expected)
    assert not any(isinstance(part, HardenedAttention) for part in model.modules())
    assert type(model.mixer) is nn.MultiheadAttention


@pytest.mark.parametrize(
    "name", ["position_bias", "head_mask", "softcap", "s_aux", "cu_seq_lens_q"]
)
def test_what_could_change_the_weights_is_refused(name: str) -> None:
    attention = harden(tiny("Bert"), PLAIN).encoder.layer[0].attention.self
    with pytest.raises(InputError, match=f"expected no {name}"):
        attention(torch.randn(2, 7, 12), **{name: torch.ones(1)})
    attention(torch.randn(2, 7, 12), **{name: None})


def test_float_masks_with_a_bias_are_refused() -> None:
    model = harden(tiny("Bert"), PLAIN)
    with pytest.raises(InputError, match="attention_mask with no values but 0 and -inf, got -1"):
        model(IDS, attention_mask=torch.full((2, 1, 7, 7), -1.0))


def test_masks_that_are_learned_are_refused_even_while_they_are_zero() -> None:
    """A bias by position starts there, and would get no gradient."""
    bias = nn.Parameter(torch.zeros(2, 1, 7, 7))
    message = "expected attention_mask to be a constant, got one that requires a gradient"
    with pytest.raises(InputError, match=message):
        harden(tiny("Bert"), PLAIN)(IDS, attention_mask=bias)
    x, layer = torch.randn(2, 7, WIDTH), harden(multihead("batch_first"), PLAIN)
    with pytest.raises(InputError, match="expected attn_mask to be a constant"):
        layer(x, x, x, attn_mask=nn.Parameter(torch.zeros(7, 7)))


def test_a_switch_of_the_implementation_is_refused() -> None:
    model = harden(tiny("Bert"), PLAIN)
    model.set_attn_implementation("sdpa")
    with pytest.raises(InputError, match="expected attention implementation attnpriv, .* got sdpa"):
        model(IDS)
    assert harden(model, PLAIN)(IDS).last_hidden_state.isfinite().all()


def test_the_implementation_without_hardening_is_refused() -> None:
    harden(tiny("Bert"), PLAIN)  # makes the name known
    with pytest.raises(InputError, match="expected a model hardened by harden.* a BertSelfAttent"):
        tiny("Bert", "attnpriv")(IDS)


def test_minilm_without_a_clip_is_that_of_transformers() -> None:
    try:
        folder = encoder_folder("minilm")
    except InputError as error:
        pytest.skip(str(error))
    plain = transformers.BertModel.from_pretrained(folder, attn_implementation="eager").eval()
    hardened = harden(transformers.BertModel.from_pretrained(folder).eval(), PLAIN)
    ids = torch.randint(1000, 20000, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = plain(ids, attention_mask=MASK, output_attentions=True)
        ours = hardened(ids, attention_mask=MASK, output_attentions=True)
        fused = hardened(ids, attention_mask=MASK).last_hidden_state
        bounded = harden(hardened, CLIPPED[0])(ids, attention_mask=MASK, output_attentions=True)
    seen = MASK.bool()
    torch.testing.assert_close(fused[seen], expected.last_hidden_state[seen], rtol=0, atol=1e-4)
    for mine, other in zip(ours.attentions, expected.attentions, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-4)
    for weights in bounded.attentions:
        within_bounds(weights, seen[:, None, None], CLIPPED[0])


def test_transformers_is_needed_for_its_own_models_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it is an error now
    monkeypatch.delitem(sys.modules, "transformers.modeling_utils")
    spec = importlib.util.find_spec("attnpriv.attention.drop_in.transformers_models")
    assert spec is not None
    assert spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert fresh.registered_attention(nn.MultiheadAttention(4, 2)) == []
    assert harden(nn.MultiheadAttention(4, 2), PLAIN)
