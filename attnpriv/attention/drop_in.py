"""Hardened attention inside finished models of ``torch.nn`` and of Hugging Face ``transformers``.

``transformers`` is not a dependency. A model of its classes is proof that it is installed and
imported, and only then it is used here.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, E = H·Dh model width.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention.modules import HardenedAttention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

Model = TypeVar("Model", bound=nn.Module)

IMPLEMENTATION = "attnpriv"  # the name of our attention in the registry of transformers
CORE = "core"  # the name of the submodule that computes the hardened attention
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


def harden(model: Model, config: AttentionConfig) -> Model:
    """Harden the attention of a finished model in place; its own weights stay as they are.

    Two kinds of attention are found, at any depth: ``nn.MultiheadAttention``, so also that in the
    layers of ``nn.Transformer``; and in models of ``transformers`` the attention that goes through
    ``AttentionInterface``, as that of BERT and its descendants does. With no clip and a temperature
    of 1 the model computes what it did. Hardening it again replaces the configuration.

    What was replaced can be listed:

    >>> model = harden(nn.TransformerEncoderLayer(8, 2), AttentionConfig(clip=2.0))
    >>> [name for name, part in model.named_modules() if isinstance(part, HardenedAttention)]
    ['self_attn.core']

    What changes besides the attention weights:

    * Attention dropout is no longer applied in training: it multiplies the weights that it keeps
      by 1/(1-p), past their bound. Other dropout stays.
    * A query that sees no key gets zeros instead of NaN, or instead of the mean of hidden values.
    * PyTorch's fused encoder layer and its nested tensors are off, and with them the zeros that
      ``nn.TransformerEncoder`` can give at padded positions in eval mode.
    * A ``transformers`` model gets its own copy of its configuration, which others may share. It
      returns attention weights where it hands ``output_attentions`` on to its attention, as BERT
      does and GPT-2 does not.
    * With ``config.temperature_floor`` the state dict gains the learned temperatures. Otherwise its
      keys stay, and what ``save_pretrained`` writes loads as the plain model.

    Args:
        model: holds, or is, an ``nn.MultiheadAttention`` or a whole model of ``transformers``.
        config: temperature and clipping; the score must be ``dot_product``.

    Returns:
        The same model.

    Raises:
        InputError: there is nothing to harden, the score is additive, or the model holds attention
            that would not be bounded: a subclass of ``nn.MultiheadAttention``; inside a model of
            ``transformers`` a class with "attention" in its name that bypasses the interface, or
            whose logits are not scaled by 1/√Dh. Nothing is changed then. The hardened model itself
            raises it for a float mask with other values than 0 and -inf, for nested tensors, for
            whatever a ``transformers`` model hands to its attention that could change the weights,
            and when its implementation was switched afterwards.

    Claim: with a clip, every weight of the attention that was replaced lies within
    ``guarantees.weight_bounds(c, τ, n)`` for n visible keys, in training and in evaluation, whether
    weights are asked for or not; τ is the floor where there is one, and ``bias_k`` and
    ``add_zero_attn`` add a visible key each. Not covered: attention in modules that the list above
    does not name; what the rest of the model computes; a model that was saved, and loaded without
    hardening it again.
    """
    if config.score != "dot_product":
        raise InputError(
            f"expected score dot_product, which the weights were made for, got {config.score!r}"
        )
    multihead, registered = _multihead_attention(model), _registered_attention(model)
    if not multihead and not registered:
        raise InputError(
            "expected a model that holds nn.MultiheadAttention or is of transformers, "
            f"got a {type(model).__name__} with no attention of either kind"
        )
    _harden_multihead(model, multihead, config)
    _harden_registered(model, registered, config)
    return model


class HardenedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with a hardened core, made by ``harden`` from a plain one.

    Claim: as for ``harden``, which see for what differs from the plain module.
    """

    core: HardenedAttention

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """False keeps ``nn.TransformerEncoderLayer`` from its fused kernel, which asks for it.

        The kernel takes the weights of this module and computes plain attention with them.
        """
        return False

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Refuse: only fused kernels, which are not hardened, want their masks merged."""
        raise InputError("expected no fused kernel around a hardened attention, got one")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As ``nn.MultiheadAttention.forward``; ``attn_mask`` holds where ``is_causal`` is a hint.

        Raises:
            InputError: a mask or a shape does not fit, a float mask holds other values than 0 and
                -inf, a tensor is nested, or there is no mask beside ``is_causal``.
        """
        if is_causal and attn_mask is None:
            raise InputError("expected an attn_mask beside the hint is_causal, got none")
        batched = _is_batched(query, key, value)
        q, k, v = self._project(*(self._batch_first(x, batched) for x in (query, key, value)))
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        visible = self._visible(attn_mask, key_padding_mask, len(q), q.shape[1], k.shape[1])
        k, v, visible = self._with_extra_keys(k, v, visible)
        q, k, v = (self._split(x) for x in (q, k, v))
        attended, weights = self.core(q, k, v, visible, need_weights)
        out = self.out_proj(attended.transpose(1, 2).flatten(2))
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        """To [B, T, ...] from one of three layouts."""
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _split(self, x: Tensor) -> Tensor:
        """[B, T, E] to [B, H, T, Dh]."""
        return x.view(*x.shape[:-1], self.num_heads, self.head_dim).transpose(1, 2)

    def _project(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values, [B, T, E] each."""
        if self.in_proj_weight is None:
            weights: tuple[Tensor, ...] = (
                self.q_proj_weight,
                self.k_proj_weight,
                self.v_proj_weight,
            )
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(F.linear(*args) for args in zip(inputs, weights, biases, strict=True))

    def _visible(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, B: int, Tq: int, Tk: int
    ) -> Tensor | None:
        """Both masks as one, True where a key may be seen, [B|1, H|1, Tq|1, Tk]."""
        visible = None
        if attn_mask is not None:
            _check_shape("attn_mask", attn_mask, (Tq, Tk), (B * self.num_heads, Tq, Tk))
            shown = _not_hidden("attn_mask", attn_mask)
            visible = shown.reshape(-1, self.num_heads if shown.ndim == 3 else 1, Tq, Tk)
        if key_padding_mask is not None:
            _check_shape("key_padding_mask", key_padding_mask, (B, Tk))
            shown = _not_hidden("key_padding_mask", key_padding_mask)[:, None, None, :]
            visible = shown if visible is None else visible & shown
        return visible

    def _with_extra_keys(
        self, k: Tensor, v: Tensor, visible: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Append the learned and the zero key, which every query sees."""
        extra = []
        if self.bias_k is not None and self.bias_v is not None:
            extra.append((self.bias_k, self.bias_v))
        if self.add_zero_attn:
            extra.append((k.new_zeros(1, 1, self.embed_dim), v.new_zeros(1, 1, self.embed_dim)))
        for more_k, more_v in extra:
            k = torch.cat([k, more_k.to(k.dtype).expand(len(k), -1, -1)], dim=1)
            v = torch.cat([v, more_v.to(v.dtype).expand(len(v), -1, -1)], dim=1)
            visible = None if visible is None else F.pad(visible, (0, 1), value=True)
        return k, v, visible


def _multihead_attention(model: nn.Module) -> list[nn.MultiheadAttention]:
    found = [part for part in model.modules() if isinstance(part, nn.MultiheadAttention)]
    for part in found:
        if type(part) not in (nn.MultiheadAttention, HardenedMultiheadAttention):
            name = type(part).__name__
            raise InputError(f"expected nn.MultiheadAttention itself, got its subclass {name}")
    return found


def _harden_multihead(
    model: nn.Module, found: list[nn.MultiheadAttention], config: AttentionConfig
) -> None:
    for part in found:
        part.__class__ = HardenedMultiheadAttention  # whoever holds the module keeps holding it
        _attach_core(part, config, part.num_heads, part.head_dim)
    for encoder in model.modules():
        if found and isinstance(encoder, nn.TransformerEncoder):
            encoder.use_nested_tensor = False


def _attach_core(module: nn.Module, config: AttentionConfig, heads: int, width: int) -> None:
    device = next(module.parameters()).device
    core = HardenedAttention(config, heads, width).to(device).train(module.training)
    module.add_module(CORE, core)


def _is_batched(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if query.is_nested or key.is_nested or value.is_nested:
        raise InputError(
            "expected plain tensors, got a nested one; an nn.TransformerEncoder makes them unless "
            "it is hardened as a whole, or was built with enable_nested_tensor=False"
        )
    if not query.ndim == key.ndim == value.ndim or query.ndim not in (2, 3):
        raise InputError(
            "expected query, key and value of two or of three dimensions, "
            f"got {list(query.shape)}, {list(key.shape)}, {list(value.shape)}"
        )
    return query.ndim == 3


def _check_shape(name: str, mask: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"expected {name} {expected}, got {list(mask.shape)}")


def _not_hidden(name: str, mask: Tensor) -> Tensor:
    """True where a mask of ``torch.nn``, in which True hides, shows a key."""
    return ~mask if mask.dtype == torch.bool else _shown(name, mask)


def _shown(name: str, mask: Tensor) -> Tensor:
    """True where a float mask, which is added to logits, shows a key.

    It may hold 0 and -inf, or in place of that its dtype's least number: anything else would move
    logits past their clip.
    """
    if not mask.is_floating_point():
        raise InputError(f"expected a bool or float {name}, got {mask.dtype}")
    hidden = mask <= torch.finfo(mask.dtype).min
    other = mask[(mask != 0) & ~hidden]
    if len(other):
        raise InputError(f"expected {name} with no values but 0 and -inf, got {other[0].item()}")
    return ~hidden


def _registered_attention(model: nn.Module) -> list[nn.Module]:
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


def _harden_registered(model: nn.Module, found: list[nn.Module], config: AttentionConfig) -> None:
    for part in found:
        if not hasattr(part, CORE):
            part.register_forward_pre_hook(_check_implementation)
        _attach_core(part, config, *_heads_and_width(part))
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
        mask = _shown("attention_mask", mask)
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
