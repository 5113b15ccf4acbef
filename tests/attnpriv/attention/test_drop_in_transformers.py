"""Models of ``transformers`` before and after ``harden``: parity, and bounds with a clip."""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, harden
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.models.pretrained import encoder_folder
from tests.attnpriv.attention.finished_models import (
    CLIPPED,
    FAMILY,
    IDS,
    MASK,
    PLAIN,
    Classifier,
    causal,
    close,
    tiny,
    within_bounds,
)

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_transformers")


def compare(ours: Any, theirs: Any, seen: Tensor) -> None:
    close(ours.last_hidden_state[seen], theirs.last_hidden_state[seen])
    assert len(ours.attentions) == len(theirs.attentions) == 2
    for mine, other in zip(ours.attentions, theirs.attentions, strict=True):
        close(mine.transpose(1, 2)[seen], other.transpose(1, 2)[seen])


@pytest.mark.every_pair
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


@pytest.mark.every_value
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
