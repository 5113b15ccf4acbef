"""Logits and how they are clipped: directly, or through the vectors they are computed from.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnpriv.attention.threads import divide, threads_for
from attnpriv.config import AttentionConfig
from attnpriv.guarantees import clip_radius


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """Keep ``torch.autocast`` from rounding a clipped logit, or the vectors behind it."""
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        return nullcontext()
    return torch.autocast(kind, enabled=False)


def clipped_logits(
    q: Float[Tensor, "B H Tq Dh"],
    k: Float[Tensor, "B H Tk Dh"],
    score_vector: Float[Tensor, "#B #H 1 Dh"] | None,
    visible: Bool[Tensor, "#B #H #Tq #Tk"] | None,
    config: AttentionConfig,
    position_bias: Float[Tensor, "H Tq Tk"] | None = None,
) -> Float[Tensor, "B H Tq Tk"]:
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


def bias_of_pairs(
    by_distance: Float[Tensor, "H distances"], queries: slice, keys: slice
) -> Float[Tensor, "H t n"]:
    """The bias of each pair from a range of queries and a range of keys, [H, t, n].

    Args:
        by_distance: the bias of every distance, [H, 2L-1]; query i and key j use entry
            ``L - 1 + j - i``.
        queries: positions of the t queries, out of L.
        keys: positions of the n keys, out of L.
    """
    if queries.start == queries.stop:
        return by_distance.new_empty(len(by_distance), 0, keys.stop - keys.start)
    zero = by_distance.shape[-1] // 2
    reach = by_distance[:, zero + keys.start - queries.stop + 1 : zero + keys.stop - queries.start]
    # Windows of n keys each; the first window belongs to the last query.
    return reach.unfold(-1, keys.stop - keys.start, 1).flip(1)


def raise_lowest(
    logits: Float[Tensor, "*batch Tq Tk"],
    visible: Bool[Tensor, "*#batch #Tq #Tk"] | None,
    reach: float,
) -> Float[Tensor, "*batch Tq Tk"]:
    """Subtract from each logit the largest visible one of its row, and raise it to ``-reach``.

    Hidden keys get ``-reach`` too. Without keys the logits are returned unchanged.
    """
    if not logits.shape[-1]:
        return logits
    if visible is not None:
        logits = logits.masked_fill(~visible, -math.inf)
    return (logits - largest_of_rows(logits)).clamp(-reach, 0)


def largest_of_rows(logits: Float[Tensor, "*rows Tk"]) -> Float[Tensor, "*rows 1"]:
    """The largest logit of each row, [..., 1], made finite: inf - inf would be NaN."""
    end = torch.finfo(logits.dtype).max
    return logits.amax(-1, keepdim=True).clamp(-end, end)


def additive_logits(
    q: Float[Tensor, "B H Tq Dh"], k: Float[Tensor, "B H Tk Dh"], w: Float[Tensor, "#B #H 1 Dh"]
) -> Float[Tensor, "B H Tq Tk"]:
    """``w·tanh(q + k)`` for every pair; takes a [..., Tq, Tk, Dh] tensor on the way.

    Source: Bahdanau et al. 2015 (arXiv:1409.0473), appendix A.1.2. Its linear layer over query and
    key is the same thing once the projections that make q and k are counted in.
    """
    return (additive_pairs(q, k) @ w.mT.unsqueeze(-3)).squeeze(-1)


def additive_pairs(
    q: Float[Tensor, "*batch Tq Dh"], k: Float[Tensor, "*batch Tk Dh"]
) -> Float[Tensor, "*batch Tq Tk Dh"]:
    """``tanh(q + k)`` for every pair, [..., Tq, Tk, Dh]."""
    return torch.tanh(q.unsqueeze(-2) + k.unsqueeze(-3))


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype to compute in where half precision is not enough: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def has_native_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; PyTorch's emulation is slower."""
    found = torch.cpu.get_capabilities()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def bound_vector(w: Float[Tensor, "*batch Dh"], clip: float) -> Float[Tensor, "*batch Dh"]:
    """Scale w down to an L1 norm of at most ``clip``, which bounds every logit: ``|tanh| <= 1``.

    Source: Hölder's inequality.
    """
    wide = w.to(wide_dtype(w))
    # Both sides are scaled by a power of two, which rounds nothing: the sum cannot overflow.
    limit = clip * (1 - 2 * torch.finfo(w.dtype).eps) * 2.0**-16
    size = (wide * 2.0**-16).abs().sum(-1, keepdim=True)
    return (wide * (limit / size.clamp(min=limit))).to(w.dtype)


def norm_radius(clip: float, width: int, dtype: torch.dtype) -> float:
    """The norm that queries and keys are shortened to, slightly below the formula's.

    Rounding the scaled entries can lengthen a vector by half an eps.
    """
    return clip_radius(clip, width) * (1 - 2 * torch.finfo(dtype).eps)


def shorten(x: Float[Tensor, "*batch Dh"], radius: float) -> Float[Tensor, "*batch Dh"]:
    """Scale the vectors [..., Dh] down to a norm of ``radius``; shorter ones stay as they are."""
    shortened: Tensor = _Shorten.apply(x, radius)  # type: ignore[no-untyped-call]
    return shortened


class _Shorten(torch.autograd.Function):
    """Written out because autograd would keep several tensors of the size of x."""

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
    """Hand out one text at a time to several threads, or all texts at once to a single one."""
    threads = threads_for(x.numel(), x.device)
    pieces = [slice(None)] if threads == 1 else [slice(b, b + 1) for b in range(len(x))]
    divide(work, pieces, threads)


def shorten_forward(
    x: Float[Tensor, "rows *more Dh"],
    radius: float,
    out: Float[Tensor, "most *more Dh"] | None = None,
) -> tuple[Float[Tensor, "rows *more Dh"], Float[Tensor, "rows *more 1"]]:
    """As ``shorten``, with the factors [..., 1]; writes to the first rows of ``out`` if given."""
    norm, before = _norm(x), None
    # While a graph is exported the values are unknown, so it has to be ready for overflow.
    if torch.compiler.is_exporting() or norm.isinf().any():
        x, before = _out_of_overflow(x, norm, radius)
        norm = _norm(x)
    # max(norm, radius) rather than min(1, radius/norm), so that nothing is divided by zero.
    factor = norm.clamp_(min=radius).reciprocal_().mul_(radius)
    if x.dtype != torch.float16:  # there a small factor would lose digits that the product keeps
        factor = factor.to(x.dtype)
    out = torch.empty_like(x) if out is None else out[: x.shape[0]]  # len would fix a graph to it
    shortened = torch.mul(x, factor, out=out)
    return shortened, (factor if before is None else factor * before).to(x.dtype)


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide_dtype(x))
    return norm


def _out_of_overflow(x: Tensor, norm: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Scale vectors whose squares overflow to a norm of at least ``radius``; also the factors.

    An infinite entry becomes NaN.
    """
    huge = norm.isinf()
    largest = x.abs().amax(-1, keepdim=True)
    # One factor after the other, because their product may leave the range of the dtype.
    scaled = torch.where(huge, x / largest * (2 * radius), x)
    return scaled, torch.where(huge, (2 * radius) / largest, 1.0)


def shorten_backward(
    grad: Float[Tensor, "*batch Dh"],
    shortened: Float[Tensor, "*batch Dh"],
    factor: Float[Tensor, "*batch 1"],
    radius: float,
    out: Float[Tensor, "*batch Dh"] | None = None,
) -> Float[Tensor, "*batch Dh"]:
    """The gradient by the input of ``shorten_forward``, from the gradient by its output."""
    # A shortened vector can only turn: the part of the gradient along it is taken off.
    along = torch.linalg.vecdot(grad, shortened).unsqueeze(-1).mul_(factor < 1)
    along.mul_(factor).div_(-radius * radius)
    return torch.mul(grad, factor, out=out).addcmul_(shortened, along)


def _dot_product_logits(q: Tensor, k: Tensor) -> Tensor:
    logits: Tensor = q @ k.mT / math.sqrt(q.shape[-1])
    return logits
