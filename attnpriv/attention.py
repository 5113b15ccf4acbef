"""Scaled dot-product attention whose logits are bounded by construction.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, D = H·Dh model width.

============================  ==================================================================
input                         result
============================  ==================================================================
a row with no visible key     zero weights and zero output, zero gradients
Tq = 0 or Tk = 0              empty result; with Tk = 0 the output is zeros
one visible key               weight 1
NaN in a visible query/key    NaN in the rows that see it, never a plausible weight
infinite logits               ``clamp`` and ``tanh`` take them to ±c; infinite q or k under
                              ``norm``, or an unclipped infinite logit, give NaN rows
values at masked keys         must be finite: 0·NaN is NaN
============================  ==================================================================
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.guarantees import clip_radius

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def attention_weights(q: Tensor, k: Tensor, mask: Tensor | None, config: AttentionConfig) -> Tensor:
    """The attention weights, each row a distribution over the visible keys.

    Half-precision inputs are computed in float32 and rounded once at the end, so a returned weight
    exceeds the bounds of ``attnpriv.guarantees`` by at most one rounding of its dtype. In float16
    that rounding can take a weight below 6e-8 to zero.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        mask: True where a key may be seen: [B, Tk], or four dimensions that broadcast to
            [B, H, Tq, Tk]; None shows every key.
        config: temperature and clipping.

    Returns:
        Weights [B, H, Tq, Tk] in the dtype of ``q``; see the table above for the edge cases.

    Raises:
        InputError: shapes or dtypes do not fit.

    Claim: with a clip, every weight lies within ``guarantees.weight_bounds(c, τ, n)`` for n visible
    keys. Not covered: anything else the network computes from the same input.
    """
    mask = _checked_mask(q, k, mask)
    wide = torch.promote_types(q.dtype, torch.float32)
    logits = _clipped_logits(q.to(wide), k.to(wide), config) / config.temperature
    if mask is None:
        return torch.softmax(logits, dim=-1).to(q.dtype)
    visible = mask.any(dim=-1, keepdim=True)
    # A row without keys gets finite logits first: softmax over -inf alone would be NaN, also in
    # the gradient.
    logits = logits.masked_fill(~mask & visible, -math.inf)
    weights = torch.softmax(logits, dim=-1).masked_fill(~visible, 0.0)
    return weights.to(q.dtype)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    config: AttentionConfig,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Weighted sums of the values, with the weights on request.

    Without weights, unclipped and ``norm``-clipped attention run in PyTorch's fused kernel and make
    no [Tq, Tk] tensor; ``clamp`` and ``tanh`` touch the logits themselves and compute them.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        v: values, [B, H, Tk, Dv].
        mask: as in ``attention_weights``.
        config: temperature and clipping.
        need_weights: also return the weights, which costs their memory.

    Returns:
        Output [B, H, Tq, Dv], and the weights [B, H, Tq, Tk] or None.

    Raises:
        InputError: shapes or dtypes do not fit.
    """
    if v.shape[:-1] != k.shape[:-1] or v.dtype != k.dtype:
        raise InputError(
            f"expected v as [B, H, Tk, Dv] in {k.dtype} beside k {list(k.shape)}, "
            f"got {list(v.shape)} in {v.dtype}"
        )
    if need_weights or not has_fused_kernel(config):
        weights = attention_weights(q, k, mask, config)
        return weights @ v, weights if need_weights else None
    return _fused(q, k, v, _checked_mask(q, k, mask), config), None


def has_fused_kernel(config: AttentionConfig) -> bool:
    """Whether the configuration leaves the logits alone, so that the fused kernel can serve it."""
    return config.clip is None or config.clip_mode == "norm"


class MultiHeadSelfAttention(nn.Module):
    """Self-attention with one fused projection for queries, keys and values.

    Args:
        dim: model width D.
        heads: number of heads H, a divisor of D.
        config: temperature and clipping, the same in every head.
    """

    def __init__(self, dim: int, heads: int, config: AttentionConfig) -> None:
        super().__init__()
        self.heads = heads
        self.config = config
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)
        self.weights = nn.Identity()  # a place where attribution hooks can see the weights

    def forward(
        self, x: Tensor, mask: Tensor, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map x [B, T, D] under mask [B, T] to ([B, T, D], weights [B, H, T, T] or None)."""
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        weights = None
        if need_weights:
            weights = self.weights(attention_weights(q, k, mask, self.config))
            attended = weights @ v
        else:
            attended, _ = attend(q, k, v, mask, self.config)
        return self.output(attended.transpose(1, 2).reshape(B, T, D)), weights


def _clipped_logits(q: Tensor, k: Tensor, config: AttentionConfig) -> Tensor:
    """``q·k/√d``, clipped as configured and not yet divided by the temperature."""
    if config.clip is None:
        return _logits(q, k)
    match config.clip_mode:
        case "clamp":
            return _logits(q, k).clamp(-config.clip, config.clip)
        case "tanh":
            return torch.tanh(_logits(q, k) / config.clip) * config.clip
        case "norm":
            return _logits(_shorten(q, config.clip), _shorten(k, config.clip))


def _logits(q: Tensor, k: Tensor) -> Tensor:
    logits: Tensor = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return logits


def _shorten(x: Tensor, clip: float) -> Tensor:
    """Scale vectors down to the norm that bounds the logit; a shorter one is left as it is."""
    # Rounding the scaled entries can lengthen the vector by half an eps; aim that much lower.
    radius = clip_radius(clip, x.shape[-1]) * (1 - 2 * torch.finfo(x.dtype).eps)
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
    # clamp(min=radius) rather than min(1, r/norm): no division by zero, no NaN gradient at 0.
    shortened: Tensor = x * (radius / norm.clamp(min=radius)).to(x.dtype)
    return shortened


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, config: AttentionConfig) -> Tensor:
    if k.shape[2] == 0:
        return q.new_zeros(*q.shape[:3], v.shape[-1])
    if config.clip is not None:
        q, k = _shorten(q, config.clip), _shorten(k, config.clip)
    scale = 1 / (math.sqrt(q.shape[-1]) * config.temperature)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)


def _checked_mask(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
    """Refuse shapes and dtypes that do not fit; return the mask with four dimensions."""
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise InputError(
            f"expected q [B, H, Tq, Dh] and k [B, H, Tk, Dh], got {list(q.shape)}, {list(k.shape)}"
        )
    if q.dtype not in FLOAT_DTYPES or k.dtype != q.dtype:
        raise InputError(f"expected q and k in one floating dtype, got {q.dtype} and {k.dtype}")
    if mask is None:
        return None
    full = (*q.shape[:3], k.shape[2])
    wanted = (full[0], full[3])
    if mask.dtype == torch.bool and mask.ndim == 2 and tuple(mask.shape) == wanted:
        return mask[:, None, None, :]
    fits = mask.ndim == 4 and all(m in (1, f) for m, f in zip(mask.shape, full, strict=True))
    if mask.dtype != torch.bool or not fits:
        raise InputError(
            f"expected a bool mask {list(wanted)} or one that broadcasts to {list(full)}, "
            f"got {mask.dtype} {list(mask.shape)}"
        )
    return mask
