"""Hardened attention behind the attention interface of Hugging Face ``transformers``.

``transformers`` is not a dependency. A model of its classes is proof that it is installed and
imported, and only then it is used here.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from typing import Any

import torch
from torch import Tensor, nn

from attnpriv.attention.drop_in.multihead import CORE, attach_core, shown
from attnpriv.attention.modules import HardenedAttention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

IMPLEMENTATION = "attnpriv"  # the name of our attention in the registry of transformers
# What models of transformers pass along to their attention and what leaves its weights alone. A
# sliding window is here because it is part of the mask as well.
HARMLESS = frozenset(
    {
        "cache_position",
        "deterministic",
        "encoder_attention_mask",
        "encoder_hidden_states",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "sliding_window",
        "token_type_ids",
        "use_cache",
    }
)


def registered_attention(model: nn.Module) -> list[nn.Module]:
    """The modules that ask the registry of transformers for their attention function."""
    if "transformers.modeling_utils" not in sys.modules:
        return []
    from transformers import PreTrainedModel

    owners = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    for owner in owners:
        _check_owner(owner)
    found = [part for part in model.modules() if owners and _asks_the_registry(part)]
    for part in found:
        _heads_and_width(part)
    return found


def _check_owner(owner: Any) -> None:
    """Refuse a model of transformers with attention that would stay plain."""
    known = [part for part in owner.modules() if _can_be_hardened(part)]
    inside = {id(part) for outer in known for part in outer.modules()}
    for part in owner.modules():
        name = type(part).__name__
        around = any(_can_be_hardened(inner) for inner in part.modules())
        if "attention" in name.lower() and not around and id(part) not in inside:
            raise InputError(
                f"expected a model whose attention goes through AttentionInterface, got {name}, "
                "which bypasses it"
            )
    # transformers would refuse to save this configuration with an attention other than its own.
    if owner.config.output_attentions:
        raise InputError(
            "expected config.output_attentions False, got True: "
            "pass output_attentions=True to the model instead"
        )


def _can_be_hardened(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or _asks_the_registry(module)


def _asks_the_registry(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def _heads_and_width(module: Any) -> tuple[int, int]:
    heads = getattr(getattr(module, "config", None), "num_attention_heads", None)
    width = getattr(module, "attention_head_size", getattr(module, "head_dim", None))
    if heads is None or width is None:
        raise InputError(
            "expected an attention module with config.num_attention_heads and attention_head_size "
            f"or head_dim, got {type(module).__name__}"
        )
    _check_scaling(getattr(module, "scaling", None), width)
    return heads, width


def _check_scaling(scaling: float | None, width: int) -> None:
    """None stands for 1/√Dh in transformers."""
    if scaling is not None and not math.isclose(scaling, width**-0.5, rel_tol=1e-6):
        raise InputError(
            f"expected logits scaled by 1/√{width} = {width**-0.5:.6g}, got {scaling:.6g}"
        )


def harden_registered(model: nn.Module, found: list[nn.Module], config: AttentionConfig) -> None:
    """Harden what ``registered_attention`` found in a model."""
    for part in found:
        if not hasattr(part, CORE):
            part.register_forward_pre_hook(_check_implementation)
        attach_core(part, config, *_heads_and_width(part))
    if found:
        _switch_implementation(model)


def _switch_implementation(model: nn.Module) -> None:
    """Make transformers call ``_attention`` for this model and for no other."""
    from transformers import AttentionInterface, AttentionMaskInterface, PretrainedConfig

    # The masks first: for a name that it does not know, transformers would drop them silently.
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    AttentionInterface.register(IMPLEMENTATION, _attention)
    copies: dict[int, Any] = {}  # one copy for all who share a configuration
    for part in model.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, PretrainedConfig):
                own = copy.deepcopy(value, copies)
                own._attn_implementation = IMPLEMENTATION
                setattr(part, name, own)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Boolean masks as for ``sdpa``, but never None for a causal one.

    None then means that every key is visible, whatever the module says about itself.
    """
    from transformers.masking_utils import sdpa_mask

    mask: Tensor | None = sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})
    return mask


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """What transformers calls in place of its own attention functions.

    Args:
        module: the attention module, with a core.
        query: [B, H, Tq, Dh].
        key: [B, H, Tk, Dh].
        value: [B, H, Tk, Dh].
        attention_mask: True or 0 where a key may be seen, broadcasts to [B, H, Tq, Tk].
        scaling: of the logits.
        dropout: not applied, see ``harden``.
        is_causal: counts where there is no mask; None is what the module says.
        others: what the model was called with.

    Returns:
        Output [B, Tq, H, Dh], and weights [B, H, Tq, Tk] where ``output_attentions`` is set.
    """
    core = getattr(module, CORE, None)
    if not isinstance(core, HardenedAttention):
        raise InputError(f"expected a model that harden() was given, got {type(module).__name__}")
    _check_scaling(scaling, query.shape[-1])
    _check_others(others)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", False)
    mask = attention_mask
    if mask is not None and mask.dtype != torch.bool:
        mask = shown("attention_mask", mask)
    causal = is_causal and mask is None and query.shape[2] > 1  # a single query is the last one
    need_weights = bool(others.get("output_attentions"))
    attended, weights = core(query, key, value, mask, need_weights, causal)
    return attended.transpose(1, 2).contiguous(), weights


def _check_others(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if name not in HARMLESS and value is not None and value is not False:
            raise InputError(
                f"expected no {name}, as hardened attention cannot tell what it does to the "
                f"weights, got a value of type {type(value).__name__}"
            )


def _check_implementation(module: Any, _: Any) -> None:
    """Before each forward pass: a hardened model that was switched over would be a plain one."""
    name = module.config._attn_implementation
    if name != IMPLEMENTATION:
        raise InputError(f"expected attention implementation {IMPLEMENTATION}, got {name}")
