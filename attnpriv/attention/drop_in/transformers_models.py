"""Hardened attention behind the attention interface of Hugging Face ``transformers``.

``transformers`` is not a dependency: it is used only once the caller has imported it, without which
there can be no model of its classes.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, Dv value width.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from attnpriv.attention.drop_in.families import (
    has_another_forward,
    is_known,
    is_of_known_family,
    may_run_known,
)
from attnpriv.attention.drop_in.multihead import CORE, shown
from attnpriv.attention.drop_in.temperatures import MARK, restore_temperatures
from attnpriv.attention.modules import HardenedAttention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

IMPLEMENTATION = "attnpriv"  # the name of our attention in the registry of transformers
# Arguments that models of transformers pass to their attention and that do not change its weights.
# A sliding window is among them because it is already part of the mask.
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
# Names under which attention modules of transformers keep their number of heads and the head width.
# The module is asked before its configuration: that of BART knows the encoder's heads only.
HEADS = ("num_heads", "num_attention_heads", "n_heads")
WIDTHS = ("head_dim", "attention_head_size", "head_size")


def registered_attention(model: nn.Module) -> list[nn.Module]:
    """The modules that ask the registry of transformers for their attention function.

    Raises:
        InputError: the model holds attention that ``families`` does not name, or that bypasses the
            registry.
    """
    owners = owners_in(model)
    if not owners:
        return []
    for part in model.modules():
        _check_part(part)
    for owner in owners:
        _check_owner(owner)
    return [part for part in model.modules() if is_known(part)]


def owners_in(model: nn.Module) -> list[Any]:
    """The models of transformers that a module is or holds, the outer before the inner."""
    if "transformers.modeling_utils" not in sys.modules:
        return []
    from transformers import PreTrainedModel

    return [part for part in model.modules() if isinstance(part, PreTrainedModel)]


def _check_part(part: nn.Module) -> None:
    """Refuse a module unless it is known to be one softmax per call or to hold no attention."""
    if is_known(part):
        return
    if may_run_known(part) or not is_of_known_family(part) or _asks_the_registry(part):
        kind = f"{type(part).__name__} from {type(part).__module__}"
        changed = may_run_known(part) and has_another_forward(part)
        raise InputError(
            "expected attention that is known to be one softmax per call, got "
            f"{kind}{' with another forward' if changed else ''}, which harden could not bound; "
            "attnpriv.attention.drop_in.families lists what it can"
        )


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
    # transformers refuses to save this setting together with an attention that is not its own.
    if owner.config.output_attentions:
        raise InputError(
            "expected config.output_attentions False, got True: "
            "pass output_attentions=True to the model instead"
        )


def _can_be_hardened(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) or is_known(module)


def _asks_the_registry(module: nn.Module) -> bool:
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "ALL_ATTENTION_FUNCTIONS" in code.co_names


def heads_and_width(module: Any) -> tuple[int, int]:
    """H of the queries and Dh of an attention module of transformers."""
    places = (module, module.config)
    heads = [getattr(place, name) for place in places for name in HEADS if hasattr(place, name)]
    widths = [getattr(module, name) for name in WIDTHS if hasattr(module, name)]
    return heads[0], widths[0]


def applications(model: nn.Module) -> Counter[nn.Module]:
    """How often a forward pass runs each attention module, for those that it may run repeatedly."""
    counts: Counter[nn.Module] = Counter()
    for part in model.modules():
        if type(part).__name__ == "AlbertTransformer":
            counts.update(_of_albert(part))
    return counts


def _of_albert(transformer: Any) -> list[nn.Module]:
    """The attention of each layer in the order in which they run, one group after the other."""
    groups = transformer.albert_layer_groups
    layers = transformer.config.num_hidden_layers
    # Divided as transformers does: rounding decides where the groups do not divide the layers.
    chosen = [groups[int(i / (layers / len(groups)))] for i in range(layers)]
    return [layer.attention for group in chosen for layer in group.albert_layers]


def harden_registered(
    model: nn.Module, cores: dict[Any, HardenedAttention], config: AttentionConfig
) -> None:
    """Give the modules of ``registered_attention`` their cores; an error changes nothing."""
    if not cores:
        return
    new = {part: core for part, core in cores.items() if not hasattr(part, CORE)}
    restore_temperatures(owners_in(model), new, config)
    configurations = _own_configurations(model, config)
    for part, core in cores.items():
        if part in new:
            part.register_forward_pre_hook(_check_implementation)
        part.add_module(CORE, core)
    for part, name, own in configurations:
        setattr(part, name, own)


def _own_configurations(
    model: nn.Module, config: AttentionConfig
) -> list[tuple[nn.Module, str, Any]]:
    """A copy of each configuration that selects ``_attention``, and the attribute it is for.

    With learned temperatures the copy gets a mark, see ``temperatures``.
    """
    from transformers import PretrainedConfig

    register()
    copies: dict[int, Any] = {}  # modules that share a configuration share its copy
    found = []
    for part in model.modules():
        for name, value in vars(part).items():
            if isinstance(value, PretrainedConfig):
                own = copy.deepcopy(value, copies)
                own._attn_implementation = IMPLEMENTATION
                vars(own).pop(MARK, None)
                if config.temperature_floor is not None:
                    setattr(own, MARK, config.temperature_floor)
                found.append((part, name, own))
    return found


def register() -> None:
    """Register ``_attention`` with transformers, which calls it for hardened models only.

    Importing this module registers it too. That serves models loaded with ``torch.load``, whose
    hook imports this module.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    # The masks first: transformers silently drops masks for a name that it does not know.
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    AttentionInterface.register(IMPLEMENTATION, _attention)


def _mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Boolean masks as for ``sdpa``, but never None in place of a causal mask.

    So None always means that every key is visible, whatever the module says about itself.
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
    """The function that transformers calls in place of its own attention.

    Args:
        module: the attention module, with a core.
        query: [B, H, Tq, Dh].
        key: [B, G, Tk, Dh]; H/G consecutive query heads share one of the G.
        value: [B, G, Tk, Dv].
        attention_mask: True or 0 where a key may be seen, broadcasts to [B, H, Tq, Tk].
        scaling: factor of the logits; None means 1/√Dh.
        dropout: not applied, see ``harden``.
        is_causal: used only without a mask; None means what the module says.
        others: further arguments that the model was called with.

    Returns:
        Output [B, Tq, H, Dv], and weights [B, H, Tq, Tk] where ``output_attentions`` is set.
    """
    core = getattr(module, CORE, None)
    if not isinstance(core, HardenedAttention):
        raise InputError(
            "expected a model hardened by harden(), got attention implementation "
            f"{IMPLEMENTATION} in a {type(module).__name__} that was not"
        )
    _check_others(others)
    if is_causal is None:
        is_causal = getattr(module, "is_causal", False)
    mask = attention_mask
    if mask is not None and mask.dtype != torch.bool:
        mask = shown("attention_mask", mask)
    causal = is_causal and mask is None and query.shape[2] > 1  # a single query is the last one
    need_weights = bool(others.get("output_attentions"))
    # Under autocast, turning queries and keys by their positions leaves them in float32.
    query, key = query.to(value.dtype), key.to(value.dtype)
    query = _scaled(query, scaling)
    key, value = (_one_for_each_head(x, query.shape[1]) for x in (key, value))
    attended, weights = core(query, key, value, mask, need_weights, causal)
    return attended.transpose(1, 2).contiguous(), weights


def _scaled(query: Tensor, scaling: float | None) -> Tensor:
    """Queries whose products with the keys, divided by √Dh as the core does, are the logits."""
    factor = 1.0 if scaling is None else scaling * query.shape[-1] ** 0.5
    return query if math.isclose(factor, 1.0, rel_tol=1e-6) else query * factor


def _one_for_each_head(x: Tensor, heads: int) -> Tensor:
    """Keys or values [B, G, Tk, D], which groups of query heads share, as [B, H, Tk, D]."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _check_others(others: dict[str, Any]) -> None:
    for name, value in others.items():
        if name not in HARMLESS and value is not None and value is not False:
            raise InputError(
                f"expected no {name}, since hardened attention cannot tell what it does to the "
                f"weights, got a value of type {type(value).__name__}"
            )


def _check_implementation(module: Any, _: Any) -> None:
    """Before each forward pass, refuse a model whose attention was switched back to a plain one."""
    name = module.config._attn_implementation
    if name != IMPLEMENTATION:
        raise InputError(
            f"expected attention implementation {IMPLEMENTATION}, which harden() has set, "
            f"got {name}"
        )


if "transformers.modeling_utils" in sys.modules:
    register()
