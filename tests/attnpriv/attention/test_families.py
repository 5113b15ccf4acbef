"""Families of ``transformers``: what is listed is one softmax a call, and the rest is refused."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, harden
from attnpriv.attention.drop_in.families import FAMILIES
from attnpriv.certificate import certify
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.usefixtures("quiet_transformers")

TOKENS = {"vocab_size": 19, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
STACK = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 17,
    "max_position_embeddings": 23,
}
ENCODER = {**TOKENS, **STACK}
DECODER = {**TOKENS, **STACK, "hidden_size": 16, "num_attention_heads": 4, "head_dim": 4}
GROUPED = {**DECODER, "num_key_value_heads": 2}
PAIR = {  # of an encoder and a decoder, with unequal heads
    **TOKENS,
    "d_model": 12,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 17,
    "decoder_ffn_dim": 17,
    "max_position_embeddings": 23,
    "decoder_start_token_id": 1,
}
IMAGE = {**STACK, "image_size": 8, "patch_size": 4}
SPEECH = {
    **TOKENS,
    **STACK,
    "conv_dim": (4, 4),
    "conv_kernel": (4, 4),
    "conv_stride": (4, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "hidden_dropout": 0.0,
}
TOWERS = {
    "text_config": {**TOKENS, **STACK, "projection_size": 12},
    "vision_config": IMAGE,
    "projection_dim": 12,
}
SIZES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(FAMILIES, ENCODER),
    "albert": {**ENCODER, "embedding_size": 5, "num_hidden_layers": 5, "num_hidden_groups": 2},
    "bart": PAIR,
    "biogpt": ENCODER,
    "blenderbot": PAIR,
    "blenderbot_small": PAIR,
    "clip": TOWERS,
    "cohere": GROUPED,
    "deit": IMAGE,
    "dinov2": IMAGE,
    "distilbert": {**TOKENS, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 17},
    "eurobert": GROUPED,
    "gemma": GROUPED,
    "glm": GROUPED,
    "gpt2": {**TOKENS, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 23},
    "gpt_neox": DECODER,
    "granite": {**GROUPED, "attention_multiplier": 0.2},
    "helium": GROUPED,
    "hubert": SPEECH,
    "llama": GROUPED,
    "m2m_100": PAIR,
    "marian": PAIR,
    "mbart": PAIR,
    "mistral": {**GROUPED, "sliding_window": 3},
    "mobilebert": {**ENCODER, "embedding_size": 5, "intra_bottleneck_size": 12},
    "modernbert": {**ENCODER, "local_attention": 2, "layer_types": None},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "opt": {**TOKENS, **STACK, "ffn_dim": 17, "word_embed_proj_dim": 12},
    "pegasus": PAIR,
    "phi": DECODER,
    "phi3": {**GROUPED, "sliding_window": 3},
    "plbart": PAIR,
    "qwen2": GROUPED,
    "qwen3": GROUPED,
    "siglip": {name: TOWERS[name] for name in ("text_config", "vision_config")},
    "smollm3": GROUPED,
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "vit": IMAGE,
    "wav2vec2": SPEECH,
    "whisper": {
        **{name: size for name, size in PAIR.items() if name != "max_position_embeddings"},
        "num_mel_bins": 4,
        "max_source_positions": 10,
        "max_target_positions": 23,
    },
    "xmod": {**ENCODER, "languages": ["en_XX"], "default_language": "en_XX"},
}
# An encoder, a decoder with grouped heads, a pair of both; for images, for speech, and two towers.
ONE_OF_EACH_KIND = ("bert", "qwen3", "bart", "vit", "wav2vec2", "siglip")
EVERY_FAMILY = [
    pytest.param(family, marks=() if family in ONE_OF_EACH_KIND else pytest.mark.exhaustive)
    for family in FAMILIES
]
MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
IDS = torch.arange(3, 17).reshape(2, 7)


def kind_of(family: str) -> Any:
    kinds = transformers.CONFIG_MAPPING
    return kinds[family if family in kinds else family.replace("_", "-")]


def small(family: str, implementation: str = "eager") -> Any:
    torch.manual_seed(0)
    if family == "encoder_decoder":
        parts = [transformers.BertConfig(**ENCODER) for _ in range(2)]
        config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(*parts)
        config._attn_implementation = implementation
        model = transformers.EncoderDecoderModel(config).eval()
    else:
        config = kind_of(family)(**SIZES[family])
        model = transformers.AutoModel.from_config(
            config, attn_implementation=implementation
        ).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)  # the default is so small that weights are uniform
    return model


def inputs(model: Any) -> dict[str, Tensor]:
    torch.manual_seed(1)
    name, made = model.main_input_name, {}
    if name == "input_ids":
        made = {"input_ids": IDS, "attention_mask": MASK}
    if name == "input_values":
        made = {"input_values": torch.randn(2, 200)}
    if name == "input_features":
        made = {"input_features": torch.randn(2, 4, 20)}
    if name == "pixel_values" or "vision_config" in model.config.sub_configs:
        made["pixel_values"] = torch.randn(2, 3, 8, 8)
    if model.config.is_encoder_decoder:
        made["decoder_input_ids"] = IDS.flip(0)
    return made


@torch.no_grad()
def outputs(model: Any) -> list[Tensor]:
    """What a model says, without what it says about padding."""
    found = model(**inputs(model))
    seen = MASK.bool()
    tensors = [value for value in found.values() if isinstance(value, Tensor)]
    return [x[seen] if x.shape[:2] == seen.shape else x for x in tensors]


def cores(model: nn.Module) -> list[HardenedAttention]:
    return [part for part in model.modules() if isinstance(part, HardenedAttention)]


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_listed_family_without_a_clip_is_that_of_transformers(family: str) -> None:
    expected = outputs(small(family))
    assert expected
    model = harden(small(family, "sdpa"), AttentionConfig())
    for ours, theirs in zip(outputs(model), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_listed_family_runs_as_many_softmaxes_as_certify_lists(family: str) -> None:
    model = harden(small(family), AttentionConfig(2.0, 1.0, temperature_floor=0.5))
    runs, asked = Counter[nn.Module](), Counter[nn.Module]()

    def count(core: nn.Module, *_: Any) -> None:
        runs[core] += 1

    def ask(part: nn.Module, *_: Any) -> None:
        asked[part.core] += 1  # type: ignore[index]

    for core in cores(model):
        core.register_forward_hook(count)
    for part in model.modules():
        if hasattr(part, "core"):
            part.register_forward_hook(ask)
    outputs(model)
    assert runs == asked  # no module asked twice, to combine the answers
    named = dict(model.named_modules())
    lines = Counter(named[head.module] for head in certify(model, keys=4, sensitive=1))
    assert lines == Counter({core: core.heads * times for core, times in runs.items()})


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_all_attention_in_the_file_of_a_listed_family_is_listed(family: str) -> None:
    where = kind_of(family).__module__.replace(".configuration_", ".modeling_")
    module = importlib.import_module(where)
    asking = {
        name
        for name, part in vars(module).items()
        if isinstance(part, type)
        and part.__module__ == module.__name__
        and "attention_interface(" in source(part)
    }
    assert asking == set(FAMILIES[family])
    assert all(source(getattr(module, name)).count("attention_interface(") == 1 for name in asking)


def source(part: type) -> str:
    forward = vars(part).get("forward")
    return "" if forward is None else inspect.getsource(inspect.unwrap(forward))


def refused() -> dict[str, Callable[[], Any]]:
    """Models whose weights the bounds would not hold for, and whose refusal came late or never."""
    t, plain = transformers, {**GROUPED, "attention_dropout": 0.0}
    return {
        "a difference of two softmaxes": lambda: t.DiffLlamaModel(t.DiffLlamaConfig(**plain)),
        "sinks": lambda: t.GptOssModel(
            t.GptOssConfig(
                **{**GROUPED, "intermediate_size": 16}, num_local_experts=2, num_experts_per_tok=1
            )
        ),
        "a soft cap": lambda: t.Gemma2Model(t.Gemma2Config(**GROUPED)),
        "a bias for each distance": lambda: t.T5EncoderModel(
            t.T5Config(vocab_size=19, d_model=12, d_kv=4, d_ff=17, num_layers=1, num_heads=3)
        ),
        "a learned bias": lambda: t.BeitModel(
            t.BeitConfig(**IMAGE, use_relative_position_bias=True)
        ),
        "a mask that only dampens": lambda: t.MarkupLMModel(
            t.MarkupLMConfig(**ENCODER, max_depth=3, xpath_unit_hidden_size=4)
        ),
        "attention of its own": lambda: t.MPNetModel(t.MPNetConfig(**ENCODER)),
        "ALiBi": lambda: t.BloomModel(
            t.BloomConfig(vocab_size=19, hidden_size=12, n_layer=2, n_head=3)
        ),
        "no attention": lambda: t.FNetModel(t.FNetConfig(**ENCODER)),
        "linear attention beside it": lambda: t.Qwen3NextModel(
            t.Qwen3NextConfig(
                **GROUPED,
                layer_types=["linear_attention", "full_attention"],
                linear_num_key_heads=2,
                linear_num_value_heads=2,
                linear_key_head_dim=4,
                linear_value_head_dim=4,
                num_experts=2,
                num_experts_per_tok=1,
                moe_intermediate_size=16,
                shared_expert_intermediate_size=16,
            )
        ),
        "one of two": lambda: nn.ModuleList(
            [small("bert"), t.MPNetModel(t.MPNetConfig(**ENCODER))]
        ),
    }


@pytest.mark.parametrize("what", refused())
def test_any_other_family_is_refused_at_once_and_runs_on_bit_for_bit(what: str) -> None:
    torch.manual_seed(0)
    model = refused()[what]().eval()
    running = model[0] if isinstance(model, nn.ModuleList) else model
    before = outputs(running)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=r"^expected .* got"):
        harden(model, AttentionConfig(2.0, 1.0, temperature_floor=0.5))
    assert all(torch.equal(*pair) for pair in zip(outputs(running), before, strict=True))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert not cores(model)
