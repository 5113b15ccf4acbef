"""The attention of Hugging Face ``transformers`` that is known to be one softmax per call.

Nothing but reading the code can tell. DiffLlama calls its attention twice and subtracts one answer
from the other, so that a key can have more weight than either answer allows; gpt-oss adds a sink to
the softmax, T5 and BEiT a bias to the logits, Gemma 2 a soft cap. Others mix tokens without any
attention, as Mamba's layers do. So every family that is not listed here is refused.

A family is a file ``modeling_NAME.py`` of transformers. Each listed one was read: all its attention
is in the classes named; their ``forward`` calls attention once, with a mask that only hides; and
the answer is projected, added to the residual, normalised or dropped out, and nothing else. The
tests compare each family with its plain model and count the calls.
"""

from __future__ import annotations

from torch import nn

# One softmax over the products of projected tokens: each token with those that the mask shows.
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
# The same, but queries and keys are first rotated by their positions, and in some families
# normalised, which moves logits before they are clipped. Groups of heads may share their keys,
# since each head still has a softmax of its own.
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
# Families that only join models of other families and have no attention of their own.
WITHOUT = {"encoder_decoder": ()}
FAMILIES: dict[str, tuple[str, ...]] = {**PROJECTED, **TURNED, **WITHOUT}

# The ``model_type`` of those families that read one text in both directions and that this package's
# own blocks do not load. Not here: X-MOD, of whose adapters one language's alone would be taught;
# LayoutLM, whose texts have places on a page; and MobileBERT, whose hidden states have no norm, so
# that their distance is of no known size.
ENCODERS = (
    "albert",
    "camembert",
    "data2vec-text",
    "electra",
    "ernie",
    "eurobert",
    "modernbert",
    "roberta-prelayernorm",
    "xlm-roberta-xl",
)


def is_known(part: nn.Module) -> bool:
    """Whether a module is attention of transformers that may be hardened."""
    return _is_listed(type(part)) and not has_another_forward(part)


def may_run_known(part: nn.Module) -> bool:
    """Whether a module is of a listed class or of a class derived from one."""
    return any(_is_listed(kind) for kind in type(part).__mro__)


def has_another_forward(part: nn.Module) -> bool:
    """Whether the ``forward`` of a module of transformers, or of its class, was replaced.

    The new one may call attention more than once.
    """
    # The globals tell where a function was defined; a decorator may have copied its other names.
    defined = getattr(type(part).forward, "__globals__", {}).get("__name__", "")
    return "forward" in vars(part) or not defined.startswith("transformers.")


def is_of_known_family(part: nn.Module) -> bool:
    """False for a module of transformers, attention or not, from a file that is not listed."""
    family = _family(type(part))
    return family is None or family in FAMILIES


def _is_listed(kind: type) -> bool:
    return kind.__name__ in FAMILIES.get(_family(kind) or "", ())


def _family(kind: type) -> str | None:
    """The NAME of the file that a class comes from; None if it is not a file of transformers."""
    if not kind.__module__.startswith("transformers.models."):
        return None
    return kind.__module__.rpartition(".modeling_")[2]
