"""What ``harden`` and a hardened model refuse, and leave as it was."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, harden
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.attnpriv.attention.finished_models import (
    CLIPPED,
    HIDDEN,
    IDS,
    MASK,
    PLAIN,
    SIZES,
    WIDTH,
    Classifier,
    causal,
    multihead,
    tiny,
    twice,
    with_another_forward,
)

transformers = pytest.importorskip("transformers")
BertSelfAttention = transformers.models.bert.modeling_bert.BertSelfAttention

pytestmark = pytest.mark.usefixtures("quiet_transformers")


class Subclass(nn.MultiheadAttention):
    pass


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
        "known to be one softmax per call, got OwnSelfAttention from .*test_drop_in_refusals",
    ),
    "another forward of attention that is known": (
        lambda: bert_with("self", lambda config: with_another_forward(BertSelfAttention(config))),
        "got BertSelfAttention from .*modeling_bert with another forward",
    ),
    "one of the layers that combines two softmaxes": (
        gpt2_with_a_difference,
        "got Difference from .*test_drop_in_refusals",
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
