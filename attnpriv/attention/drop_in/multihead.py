"""``nn.MultiheadAttention`` with a hardened core.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, E = H·Dh model width.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention.modules import HardenedAttention
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

CORE = "core"  # the name of the submodule that computes the hardened attention


class HardenedMultiheadAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` with a hardened core, made by ``harden`` from a plain one.

    Claim: as for ``harden``, whose docstring also lists what differs from the plain module.
    """

    core: HardenedAttention

    @property
    def _qkv_same_embed_dim(self) -> bool:
        """False, so that ``nn.TransformerEncoderLayer`` does not use its fused kernel.

        The kernel would take the weights of this module and compute plain attention with them.
        """
        return False

    def merge_masks(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, query: Tensor
    ) -> tuple[Tensor | None, int | None]:
        """Refuse: only fused kernels, which are not hardened, ask to merge masks."""
        raise InputError("a fused kernel cannot be used with hardened attention: it is not bounded")

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
        """As ``nn.MultiheadAttention.forward``; ``is_causal`` is only a hint to ``attn_mask``.

        Raises:
            InputError: a mask or a shape does not fit, a float mask holds values other than 0 and
                -inf, a tensor is nested, or ``is_causal`` is set without an ``attn_mask``.
        """
        if is_causal and attn_mask is None:
            raise InputError("expected an attn_mask together with is_causal=True, got none")
        batched = _is_batched(query, key, value)
        q, k, v = self._project(*(self._batch_first(x, batched) for x in (query, key, value)))
        if key_padding_mask is not None and not batched:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        visible = self._visible(attn_mask, key_padding_mask, q.shape[0], q.shape[1], k.shape[1])
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
            k = torch.cat([k, more_k.to(k.dtype).expand(k.shape[0], -1, -1)], dim=1)
            v = torch.cat([v, more_v.to(v.dtype).expand(v.shape[0], -1, -1)], dim=1)
            visible = None if visible is None else F.pad(visible, (0, 1), value=True)
        return k, v, visible


def multihead_attention(model: nn.Module) -> list[nn.MultiheadAttention]:
    """All ``nn.MultiheadAttention`` modules of a model.

    Raises:
        InputError: one is of a subclass, or its ``forward`` was replaced. Either may compute
            anything, and a replaced ``forward`` would run in place of ours.
    """
    found = [part for part in model.modules() if isinstance(part, nn.MultiheadAttention)]
    for part in found:
        if type(part) not in (nn.MultiheadAttention, HardenedMultiheadAttention):
            name = type(part).__name__
            raise InputError(f"expected nn.MultiheadAttention itself, got its subclass {name}")
        if "forward" in vars(part) and type(part) is nn.MultiheadAttention:
            raise InputError(
                "expected nn.MultiheadAttention with the forward of its class, got one whose "
                "forward was replaced: harden the model before replacing it"
            )
    return found


def harden_multihead(
    model: nn.Module, cores: dict[nn.MultiheadAttention, HardenedAttention]
) -> None:
    """Give the modules of ``multihead_attention`` their cores."""
    for part, core in cores.items():
        part.__class__ = HardenedMultiheadAttention  # references to the module stay valid
        part.add_module(CORE, core)
    for encoder in model.modules():
        if cores and isinstance(encoder, nn.TransformerEncoder):
            encoder.use_nested_tensor = False


def make_core(
    module: nn.Module, config: AttentionConfig, heads: int, width: int
) -> HardenedAttention:
    """The core for a module's attention; the module itself is not changed.

    If it has a core with an equal configuration, that one is kept with its learned temperatures.
    """
    present = getattr(module, CORE, None)
    if isinstance(present, HardenedAttention) and present.config == config:
        return present
    if not isinstance(present, HardenedAttention | None):
        raise InputError(
            f"expected {type(module).__name__} without an attribute named {CORE}, got one with it: "
            "the hardened attention takes that name"
        )
    # Quantised layers have no parameters; they run on the CPU.
    tensors = chain(module.parameters(), module.buffers(), [torch.empty(0, device="cpu")])
    core = HardenedAttention(config, heads, width)
    return core.to(next(tensors).device).train(module.training)


def _is_batched(query: Tensor, key: Tensor, value: Tensor) -> bool:
    if query.is_nested or key.is_nested or value.is_nested:
        raise InputError(
            "expected plain tensors, got a nested one; nn.TransformerEncoder makes nested tensors "
            "unless it is hardened as a whole or was built with enable_nested_tensor=False"
        )
    if not query.ndim == key.ndim == value.ndim or query.ndim not in (2, 3):
        raise InputError(
            "expected query, key and value all with two or all with three dimensions, "
            f"got {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
        )
    return query.ndim == 3


def _check_shape(name: str, mask: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(str(list(shape)) for shape in shapes)
        raise InputError(f"expected {name} of shape {expected}, got {list(mask.shape)}")


def _not_hidden(name: str, mask: Tensor) -> Tensor:
    """True where a mask of ``torch.nn`` shows a key; in those masks True hides one."""
    return ~mask if mask.dtype == torch.bool else shown(name, mask)


def shown(name: str, mask: Tensor) -> Tensor:
    """True where a float mask, which is added to logits, shows a key.

    It may hold 0, and -inf or its dtype's least number. Anything else would move logits past their
    clip. A learned mask is refused because it would get no gradient.
    """
    if not mask.is_floating_point():
        raise InputError(f"expected a bool or float {name}, got {mask.dtype}")
    if mask.requires_grad:
        raise InputError(f"expected {name} to be a constant, got one that requires a gradient")
    hidden = mask <= torch.finfo(mask.dtype).min
    fits = hidden | (mask == 0)
    message = f"expected {name} with no values but 0 and -inf"
    if torch.compiler.is_exporting():  # the values are not known yet: the graph will check them
        torch._assert_async(fits.all(), message)
    elif not fits.all():
        raise InputError(f"{message}, got {mask[~fits][0].item()}")
    return ~hidden
