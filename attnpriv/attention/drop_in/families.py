"""The attention of Hugging Face ``transformers`` that is known to be one softmax a call.

That cannot be told from outside. DiffLlama asks for its attention twice and subtracts one answer
from the other, so that a key can have more weight than either answer allows; gpt-oss adds a sink to
the softmax, T5 and BEiT a bias to the logits, Gemma 2 a soft cap. Others mix tokens without any
attention, as Mamba's layers do. So what is not listed here is refused.

A family is a file ``modeling_NAME.py`` of transformers. Each one listed was read: all its attention
is in the classes named, whose ``forward`` asks for attention once, with a mask that only hides, and
whose answer is projected, added to the residual, normalised or dropped out, and no more. The tests
hold each family against its plain model and count the calls.
"""

from __future__ import annotations

from torch import nn

# One softmax over the products of projected tokens, every token's with those that the mask shows.
PROJECTED = {
    "albert": ("AlbertAttention",),
    "bart": ("BartAttention",),
    "bert": ("BertSelfAttention", "BertCrossAttention"),
    "bert_generation": ("BertGenerationSelfAttention", "BertGenerationCrossAttention"),
    "biogpt": ("BioGptAttention",),
    "blenderbot": ("BlenderbotAttention",),
    "blenderbot_small": ("BlenderbotSmallAttention",),
    "camembert": ("CamembertSelfAttention", "CamembertCrossAttention"),
    "clip": ("CLIPAttention",),
    "data2vec_text": ("Data2VecTextSelfAttention", "Data2VecTextCrossAttention"),
    "deit": ("DeiTAttention",),
    "dinov2": ("Dinov2Attention",),
    "distilbert": ("DistilBertSelfAttention",),
    "electra": ("ElectraSelfAttention", "ElectraCrossAttention"),
    "ernie": ("ErnieSelfAttention", "ErnieCrossAttention"),
    "gpt2": ("GPT2Attention",),
    "hubert": ("HubertAttention",),
    "layoutlm": ("LayoutLMSelfAttention",),
    "m2m_100": ("M2M100Attention",),
    "marian": ("MarianAttention",),
    "mbart": ("MBartAttention",),
    "mobilebert": ("MobileBertSelfAttention",),
    "opt": ("OPTAttention",),
    "pegasus": ("PegasusAttention",),
    "plbart": ("PLBartAttention",),
    "roberta": ("RobertaSelfAttention", "RobertaCrossAttention"),
    "roberta_prelayernorm": (
        "RobertaPreLayerNormSelfAttention",
        "RobertaPreLayerNormCrossAttention",
    ),
    "siglip": ("SiglipAttention",),
    "vit": ("ViTAttention",),
    "wav2vec2": ("Wav2Vec2Attention",),
    "whisper": ("WhisperAttention",),
    "xlm_roberta": ("XLMRobertaSelfAttention", "XLMRobertaCrossAttention"),
    "xlm_roberta_xl": ("XLMRobertaXLSelfAttention", "XLMRobertaXLCrossAttention"),
    "xmod": ("XmodSelfAttention", "XmodCrossAttention"),
}
# The same after queries and keys were turned by their positions, and in some normalised: that moves
# logits before they are clipped. Groups of heads may share their keys, as each head has a softmax
# of its own all the same.
TURNED = {
    "cohere": ("CohereAttention",),
    "esm": ("EsmSelfAttention",),
    "eurobert": ("EuroBertAttention",),
    "gemma": ("GemmaAttention",),
    "glm": ("GlmAttention",),
    "gpt_neox": ("GPTNeoXAttention",),
    "granite": ("GraniteAttention",),
    "helium": ("HeliumAttention",),
    "llama": ("LlamaAttention",),
    "mistral": ("MistralAttention",),
    "modernbert": ("ModernBertAttention",),
    "olmo": ("OlmoAttention",),
    "olmo2": ("Olmo2Attention",),
    "phi": ("PhiAttention",),
    "phi3": ("Phi3Attention",),
    "qwen2": ("Qwen2Attention",),
    "qwen3": ("Qwen3Attention",),
    "smollm3": ("SmolLM3Attention",),
    "stablelm": ("StableLmAttention",),
    "starcoder2": ("Starcoder2Attention",),
}
# What joins models of other families, and attends to nothing itself.
WITHOUT = {"encoder_decoder": ()}
FAMILIES: dict[str, tuple[str, ...]] = {**PROJECTED, **TURNED, **WITHOUT}


def is_known(part: nn.Module) -> bool:
    """Whether a module is attention of transformers that may be hardened."""
    return _is_listed(type(part)) and not has_another_forward(part)


def may_run_known(part: nn.Module) -> bool:
    """Whether a module is of a listed class or of one that was derived from it."""
    return any(_is_listed(kind) for kind in type(part).__mro__)


def has_another_forward(part: nn.Module) -> bool:
    """Whether a module of transformers, or its class, was given a ``forward`` from elsewhere.

    It may ask for attention more than once.
    """
    # Where a function was defined: what a decorator copied from the original may say otherwise.
    defined = getattr(type(part).forward, "__globals__", {}).get("__name__", "")
    return "forward" in vars(part) or not defined.startswith("transformers.")


def is_of_known_family(part: nn.Module) -> bool:
    """False for a module of transformers, attention or not, from a file that is not listed."""
    family = _family(type(part))
    return family is None or family in FAMILIES


def _is_listed(kind: type) -> bool:
    return kind.__name__ in FAMILIES.get(_family(kind) or "", ())


def _family(kind: type) -> str | None:
    """The NAME of the file that a class is from; None where that is none of transformers."""
    if not kind.__module__.startswith("transformers.models."):
        return None
    return kind.__module__.rpartition(".modeling_")[2]
