"""Logits and how they are clipped: by themselves, or through the vectors that make them.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnpriv.attention.threads import divide, threads_for
from attnpriv.config import AttentionConfig
from attnpriv.guarantees import clip_radius


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Keep ``torch.autocast`` from rounding a logit after its clip, or what makes it."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def clipped_logits(
    q: Tensor,
    k: Tensor,
    score_vector: Tensor | None,
    visible: Tensor | None,
    config: AttentionConfig,
    position_bias: Tensor | None = None,
) -> Tensor:
    """Logits within ``±config.clip``, not yet divided by the temperature, [B, H, Tq, Tk].

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        score_vector: w of additive scores, broadcasts to [B, H, 1, Dh]; None for dot products.
        visible: True where a key may be seen, broadcasts to the result; None where all may.
        config: score and clipping.
        position_bias: added to scaled dot products before they are clipped, [H, Tq, Tk].
    """
    if config.clip is not None and config.clip_mode == "norm":
        if score_vector is not None:
            return additive_logits(q, k, bound_vector(score_vector, config.clip))
        radius = norm_radius(config.clip, q.shape[-1], q.dtype)
        return _dot_product_logits(shorten(q, radius), shorten(k, radius))
    if score_vector is not None:
        logits = additive_logits(q, k, score_vector)
    else:
        logits = _dot_product_logits(q, k)
    if position_bias is not None:
        logits = logits + position_bias
    if config.clip is None:
        return logits
    match config.clip_mode:
        case "clamp":
            return logits.clamp(-config.clip, config.clip)
        case "relative":
            return raise_lowest(logits, visible, 2 * config.clip) + config.clip
        case _:
            return torch.tanh(logits / config.clip) * config.clip


def bias_of_pairs(by_distance: Tensor, queries: slice, keys: slice) -> Tensor:
    """The bias of every query and key of two ranges, [H, t, n], from that of every distance.

    Args:
        by_distance: [H, 2L-1]; that of key j and query i stands at ``L - 1 + j - i``.
        queries: where the t queries stand among L positions.
        keys: where the n keys do.
    """
    if queries.start == queries.stop:
        return by_distance.new_empty(len(by_distance), 0, keys.stop - keys.start)
    zero = by_distance.shape[-1] // 2
    reach = by_distance[:, zero + keys.start - queries.stop + 1 : zero + keys.stop - queries.start]
    # Windows of n keys, whose first is that of the last query.
    return reach.unfold(-1, keys.stop - keys.start, 1).flip(1)


def raise_lowest(logits: Tensor, visible: Tensor | None, reach: float) -> Tensor:
    """Logits less the largest one that their row sees, and none below ``-reach``.

    Keys that may not be seen come out as low as that; a row without keys is left as it is.
    """
    if not logits.shape[-1]:
        return logits
    if visible is not None:
        logits = logits.masked_fill(~visible, -math.inf)
    return (logits - largest_of_rows(logits)).clamp(-reach, 0)


def largest_of_rows(logits: Tensor) -> Tensor:
    """[..., 1], and finite where logits are infinite: the difference of two would be NaN."""
    end = torch.finfo(logits.dtype).max
    return logits.amax(-1, keepdim=True).clamp(-end, end)


def additive_logits(q: Tensor, k: Tensor, w: Tensor) -> Tensor:
    """``w·tanh(q + k)`` for every pair, at the price of a [..., Tq, Tk, Dh] tensor.

    Source: Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2; a linear layer over the
    concatenation of query and key is the same with the projections inside q and k.
    """
    return (additive_pairs(q, k) @ w.mT.unsqueeze(-3)).squeeze(-1)


def additive_pairs(q: Tensor, k: Tensor) -> Tensor:
    """``tanh(q + k)`` for every pair, [..., Tq, Tk, Dh]."""
    return torch.tanh(q.unsqueeze(-2) + k.unsqueeze(-3))


def wide_dtype(x: Tensor) -> torch.dtype:
    """What to compute in where half precision would not do: float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def has_native_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself; where PyTorch has to imitate it, it is slower."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def bound_vector(w: Tensor, clip: float) -> Tensor:
    """W scaled down to an L1 norm of at most ``clip``: as ``|tanh| <= 1``, so is every logit.

    Source: Hölder's inequality.
    """
    wide = w.to(wide_dtype(w))
    # Both sides are made smaller by a power of two, which rounds nothing: the sum cannot overflow.
    limit = clip * (1 - 2 * torch.finfo(w.dtype).eps) * 2.0**-16
    size = (wide * 2.0**-16).abs().sum(-1, keepdim=True)
    return (wide * (limit / size.clamp(min=limit))).to(w.dtype)


def norm_radius(clip: float, width: int, dtype: torch.dtype) -> float:
    """The norm to shorten queries and keys of a width to, a little lower than the formula's.

    Rounding the scaled entries can lengthen a vector by half an eps.
    """
    return clip_radius(clip, width) * (1 - 2 * torch.finfo(dtype).eps)


def shorten(x: Tensor, radius: float) -> Tensor:
    """Scale the vectors [..., Dh] down to a norm; a shorter one is left as it is."""
    shortened: Tensor = _Shorten.apply(x, radius)  # type: ignore[no-untyped-call]
    return shortened


class _Shorten(torch.autograd.Function):
    """Written out, because autograd would keep and pass over several tensors of the size of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, radius: float) -> Tensor:
        shortened, factor = torch.empty_like(x), x.new_empty(*x.shape[:-1], 1)

        def work(texts: Iterator[slice]) -> None:
            for own in texts:
                factor[own] = shorten_forward(x[own], radius, shortened[own])[1]

        _divide_texts(work, x)
        ctx.save_for_backward(shortened, factor)
        ctx.radius = radius
        return shortened

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (shortened, factor), radius = ctx.saved_tensors, ctx.radius
        by_x = torch.empty_like(grad)

        def work(texts: Iterator[slice]) -> None:
            for own in texts:
                shorten_backward(grad[own], shortened[own], factor[own], radius, by_x[own])

        _divide_texts(work, grad)
        return by_x, None


def _divide_texts(work: Callable[[Iterator[slice]], None], x: Tensor) -> None:
    """One after the other where there are several threads, or all at once."""
    threads = threads_for(x.numel(), x.device)
    pieces = [slice(None)] if threads == 1 else [slice(b, b + 1) for b in range(len(x))]
    divide(work, pieces, threads)


def shorten_forward(x: Tensor, radius: float, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As ``shorten``, and the factors [..., 1]; into the first rows of ``out`` if it is given."""
    norm, before = _norm(x), None
    # In a graph that is exported the values are unknown, and it has to be ready for all.
    if torch.compiler.is_exporting() or norm.isinf().any():
        x, before = _out_of_overflow(x, norm, radius)
        norm = _norm(x)
    # The larger of norm and radius rather than min(1, r/norm): no division by zero.
    factor = norm.clamp_(min=radius).reciprocal_().mul_(radius)
    if x.dtype != torch.float16:  # in which a small factor has few digits, but a product has them
        factor = factor.to(x.dtype)
    out = torch.empty_like(x) if out is None else out[: x.shape[0]]  # len would fix a graph to it
    shortened = torch.mul(x, factor, out=out)
    return shortened, (factor if before is None else factor * before).to(x.dtype)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide_dtype(x))
    return norm


def _out_of_overflow(x: Tensor, norm: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Vectors whose squares overflow, scaled to a norm of ``radius`` or some more; and the factors.

    An infinite entry becomes NaN.
    """
    huge = norm.isinf()
    largest = x.abs().amax(-1, keepdim=True)
    # By one factor after the other: their product may leave the range of the dtype.
    scaled = torch.where(huge, x / largest * (2 * radius), x)
    return scaled, torch.where(huge, (2 * radius) / largest, 1.0)


def shorten_backward(
    grad: Tensor, shortened: Tensor, factor: Tensor, radius: float, out: Tensor | None = None
) -> Tensor:
    """The gradient by what ``shorten_forward`` took, from that by what it gave."""
    # A vector at the radius can only turn: what points along it is taken off.
    along = torch.linalg.vecdot(grad, shortened).unsqueeze(-1).mul_(factor < 1)
    along.mul_(factor).div_(-radius * radius)
    return torch.mul(grad, factor, out=out).addcmul_(shortened, along)


def _dot_product_logits(q: Tensor, k: Tensor) -> Tensor:
    logits: Tensor = q @ k.mT / math.sqrt(q.shape[-1])
    return logits
