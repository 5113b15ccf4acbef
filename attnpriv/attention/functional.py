"""Attention as pure functions of queries, keys and values, and the choice of a backend.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, Dv value width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from attnpriv.attention.blockwise import Rule, blockwise_attention
from attnpriv.attention.flex import flex_attend
from attnpriv.attention.scores import (
    bound_vector,
    clipped_logits,
    has_native_bfloat16,
    norm_radius,
    shorten,
    shorten_forward,
    wide_dtype,
    without_autocast,
)
from attnpriv.attention.threads import divide, threads_for
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError

FLOAT_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Under ``norm`` on a CPU, PyTorch's kernel is faster than ours from this many keys on.
FUSED_KEYS, FUSED_KEYS_HALF = 128, 512
PIECE_BYTES = 1 << 19  # how many bytes of queries are shortened at a time
LOG2E = math.log2(math.e)
# Base-2 exponents up to this need no maximum subtracted first: float32 overflows only past 127.
LARGEST_EXPONENT = 60.0

Backend = Literal["eager", "fused", "blockwise", "flex"]
Mask = Bool[Tensor, "B Tk"] | Bool[Tensor, "#B #H #Tq #Tk"]
PerHead = Float[Tensor, " H"] | Float[Tensor, "B H"]
VectorPerHead = Float[Tensor, "H Dh"] | Float[Tensor, "B H Dh"]


def choose_backend(
    config: AttentionConfig,
    device: torch.device,
    need_weights: bool,
    dtype: torch.dtype = torch.float32,
    keys: int = FUSED_KEYS,
    biased: bool = False,
) -> Backend:
    """The backend that computes the attention. It depends on the arguments alone.

    * ``eager``: whenever the weights are asked for, since no other backend has them, and when there
      are no keys.
    * ``fused``, PyTorch's ``scaled_dot_product_attention``: dot products without a clip, or under
      ``norm``, which leaves the logits alone. Exception: with few keys under ``norm`` on a CPU,
      ``blockwise`` was measured to be faster (docs/benchmark-log.md).
    * ``flex``, PyTorch's FlexAttention: dot products under ``clamp`` and ``tanh`` on CUDA. On a CPU
      it has no backward pass and gives wrong results for a clamp in bfloat16 (torch 2.13). It
      cannot find the largest logit of a row, which ``relative`` needs.
    * ``blockwise``, this package's own kernel: everything else, and all logits with a position
      bias, for which the other backends would need a [Tq, Tk] tensor.

    All backends give the same answer up to rounding. All but ``eager`` use memory linear in Tk.

    Args:
        config: score and clipping.
        device: where the tensors are.
        need_weights: whether the weights will be returned.
        dtype: dtype of the tensors.
        keys: Tk.
        biased: whether a position bias is added to the logits.

    >>> choose_backend(AttentionConfig(clip=2.0), torch.device("cpu"), need_weights=False)
    'blockwise'
    """
    if need_weights or not keys:
        return "eager"
    if config.score == "additive" or biased:
        return "blockwise"
    if config.clip is None:
        return "fused"
    if config.clip_mode == "norm":
        enough = FUSED_KEYS if dtype.itemsize > 2 else FUSED_KEYS_HALF
        return "blockwise" if device.type == "cpu" and keys < enough else "fused"
    return "flex" if device.type == "cuda" and config.clip_mode != "relative" else "blockwise"


def attention_weights(
    q: Float[Tensor, "B H Tq Dh"],
    k: Float[Tensor, "B H Tk Dh"],
    mask: Mask | None,
    config: AttentionConfig,
    *,
    causal: bool = False,
    temperature: PerHead | None = None,
    score_vector: VectorPerHead | None = None,
    position_bias: Float[Tensor, "H distances"] | None = None,
) -> Float[Tensor, "B H Tq Tk"]:
    """The attention weights, each row a distribution over the visible keys.

    Half-precision inputs are computed in float32 and rounded once at the end, so a returned weight
    exceeds the bounds of ``attnpriv.guarantees`` by at most one rounding of its dtype. In float16
    that rounding can take a weight below 6e-8 to zero.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        mask: True where a key may be seen: [B, Tk], or four dimensions that broadcast to
            [B, H, Tq, Tk]; None shows every key.
        config: score, temperature and clipping.
        causal: query i sees the keys up to i only, besides the mask.
        temperature: τ of every head, [H] or [B, H], used instead of ``config.temperature``.
        score_vector: the vector w of additive scores, [H, Dh] or [B, H, Dh].
        position_bias: added to scaled dot products before the clip, one number per head and
            distance: [H, 2L-1] with L >= Tq and Tk. Query i and key j get entry ``L - 1 + j - i``.
            A constant: no gradient flows to it.

    Returns:
        Weights [B, H, Tq, Tk] in the dtype of ``q``; the package's docstring lists edge cases.

    Raises:
        InputError: shapes or dtypes do not fit; additive scores come without a score vector, or
            other scores with one; or a position bias is given with additive scores or ``norm``,
            whose bounds it would break.

    Claim: with a clip, every weight lies within ``guarantees.weight_bounds(c, τ, n)`` for n visible
    keys. Not covered: anything else the network computes from the same input.
    """
    mask = _visible(_checked_mask(q, k, mask), q, k, causal)
    tau, vector = _per_head(temperature, score_vector, q, config)
    wide = wide_dtype(q)
    vector = None if vector is None else vector.to(wide)
    bias = _checked_bias(position_bias, q, k, config)
    if bias is not None:
        query, key = (torch.arange(x.shape[2], device=q.device) for x in (q, k))
        bias = bias.to(wide)[:, bias.shape[1] // 2 + key - query[:, None]]
    with without_autocast(q):
        logits = clipped_logits(q.to(wide), k.to(wide), vector, mask, config, bias) / tau
    if mask is None:
        return torch.softmax(logits, dim=-1).to(q.dtype)
    visible = mask.any(dim=-1, keepdim=True)
    # A row without visible keys keeps finite logits: a softmax over nothing but -inf would be NaN,
    # in the gradient too.
    logits = logits.masked_fill(~mask & visible, -math.inf)
    weights = torch.softmax(logits, dim=-1).masked_fill(~visible, 0.0)
    return weights.to(q.dtype)


def attend(
    q: Float[Tensor, "B H Tq Dh"],
    k: Float[Tensor, "B H Tk Dh"],
    v: Float[Tensor, "B H Tk Dv"],
    mask: Mask | None,
    config: AttentionConfig,
    need_weights: bool = False,
    *,
    causal: bool = False,
    temperature: PerHead | None = None,
    score_vector: VectorPerHead | None = None,
    position_bias: Float[Tensor, "H distances"] | None = None,
) -> tuple[Float[Tensor, "B H Tq Dv"], Float[Tensor, "B H Tq Tk"] | None]:
    """Weighted sums of the values, with the weights on request.

    Without weights no [B, H, Tq, Tk] tensor is made, forward or backward. A mask together with
    ``causal`` takes one boolean [B, 1, Tq, Tk] where the fused kernel runs. See ``choose_backend``.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        v: values, [B, H, Tk, Dv].
        mask: as in ``attention_weights``.
        config: score, temperature and clipping.
        need_weights: also return the weights, which costs their memory.
        causal: as in ``attention_weights``.
        temperature: as in ``attention_weights``.
        score_vector: as in ``attention_weights``.
        position_bias: as in ``attention_weights``.

    Returns:
        Output [B, H, Tq, Dv], and the weights [B, H, Tq, Tk] or None.

    Raises:
        InputError: as ``attention_weights``, or ``v`` does not fit ``k``.

    Claim: the weights behind the output keep the bounds of ``attnpriv.guarantees`` up to
    rounding: a factor below ``1 + 2·eps`` in half precision, and close to 1 otherwise, as
    docs/guarantees.md spells out under "Rounding". Not covered: as there.
    """
    if v.ndim != 4 or v.shape[:-1] != k.shape[:-1] or v.dtype != k.dtype:
        raise InputError(
            f"expected v of shape [B, H, Tk, Dv] and dtype {k.dtype} to go with k of shape "
            f"{list(k.shape)}, got {list(v.shape)} and {v.dtype}"
        )
    biased = position_bias is not None
    backend = choose_backend(config, q.device, need_weights, q.dtype, k.shape[2], biased)
    # An exported graph must hold for other sizes; the loops of the other backends would fix theirs.
    if backend == "eager" or torch.compiler.is_exporting():
        weights = attention_weights(
            q, k, mask, config, causal=causal, temperature=temperature,
            score_vector=score_vector, position_bias=position_bias,
        )  # fmt: skip
        return weights @ v, weights if need_weights else None
    mask = _checked_mask(q, k, mask)
    bias = _checked_bias(position_bias, q, k, config)
    tau, vector = _per_head(temperature, score_vector, q, config)
    with without_autocast(q):
        match backend:
            case "fused":
                return _fused(q, k, v, mask, config, causal, tau), None
            case "flex":
                return flex_attend(q, k, v, mask, config, causal, tau), None
            case "blockwise":
                return _blockwise(q, k, v, mask, config, causal, tau, vector, bias), None


def _fused(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    config: AttentionConfig,
    causal: bool,
    tau: Tensor | float,
) -> Tensor:
    if config.clip is None:
        return _fused_kernel(q, k, v, mask, causal, tau)
    radius = norm_radius(config.clip, q.shape[-1], q.dtype)
    if torch.is_grad_enabled():
        return _fused_kernel(shorten(q, radius), shorten(k, radius), v, mask, causal, tau)
    # A few texts at a time into the same memory, so that it stays in the cache.
    rows = max(1, PIECE_BYTES // max(1, q[:1].numel() * q.element_size()))
    out = q.new_empty(*q.shape[:3], v.shape[-1])

    def attend_to(pieces: Iterator[slice]) -> None:
        short_q, short_k = torch.empty_like(q[:rows]), torch.empty_like(k[:rows])
        for piece in pieces:
            a = shorten_forward(q[piece], radius, short_q)[0]
            b = shorten_forward(k[piece], radius, short_k)[0]
            own_mask = mask if mask is None or len(mask) == 1 else mask[piece]
            own_tau = tau[piece] if isinstance(tau, Tensor) and len(tau) > 1 else tau
            out[piece] = _fused_kernel(a, b, v[piece], own_mask, causal, own_tau)

    pieces = [slice(start, start + rows) for start in range(0, len(q), rows)]
    divide(attend_to, pieces, threads_for(q.numel(), q.device))
    return out


def _fused_kernel(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
    tau: Tensor | float,
) -> Tensor:
    scale = 1 / math.sqrt(q.shape[-1])
    if isinstance(tau, Tensor):
        q = (q / tau).to(q.dtype)
    else:
        scale /= tau
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)
    visible = _visible(mask, q, k, causal)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)


def _blockwise(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    config: AttentionConfig,
    causal: bool,
    tau: Tensor | float,
    vector: Tensor | None,
    bias: Tensor | None,
) -> Tensor:
    dtype = _blockwise_dtype(q, config)
    if vector is not None:
        vector = vector.to(dtype)
        if config.clip is not None and config.clip_mode == "norm":
            vector = bound_vector(vector, config.clip)
    rule, gain = _rule(q, config, causal, tau, dtype)
    gain = None if gain is None else gain.expand(*q.shape[:2], 1, 1)
    if bias is not None:  # the rule's scale holds for dot products that are not scaled yet
        bias = bias * (rule.scale * math.sqrt(q.shape[-1]))
    return blockwise_attention(q, k, v, gain, vector, bias, mask, rule)


def _blockwise_dtype(q: Tensor, config: AttentionConfig) -> torch.dtype:
    """The dtype in which the blockwise kernel runs its forward pass.

    The range of float16 is too small for exponentials. bfloat16 keeps few digits of the differences
    between large logits, on which ``relative`` depends, and takes ten times as long on a CPU that
    cannot multiply it (docs/benchmark-log.md).
    """
    if q.dtype != torch.bfloat16:
        return wide_dtype(q)
    relative = config.clip is not None and config.clip_mode == "relative"
    slow = q.device.type == "cpu" and not has_native_bfloat16()
    return torch.float32 if relative or slow else torch.bfloat16


def _rule(
    q: Tensor, config: AttentionConfig, causal: bool, tau: Tensor | float, dtype: torch.dtype
) -> tuple[Rule, Tensor | None]:
    """How a score becomes an exponent to the base 2, and the per-head gain where one is needed.

    A fixed temperature goes into the scale of the scores, which costs nothing.
    """
    learned = isinstance(tau, Tensor)
    down = 1 - torch.finfo(dtype).eps  # so that rounding to the dtype exceeds no bound
    smallest = float(tau.detach().min()) if isinstance(tau, Tensor) else tau
    scale = 1.0 if config.score == "additive" else 1 / math.sqrt(q.shape[-1])
    mode = None if config.clip is None else config.clip_mode
    overflows = 2 * config.logit_bound / smallest * LOG2E > LARGEST_EXPONENT
    overflows = overflows and mode != "relative"  # whose largest exponent is 0 already
    if mode == "tanh":
        # c·tanh(z/c) = 2c·sigmoid(2z/c) - c, and a softmax does not see the shift.
        gain: Tensor | None = torch.as_tensor(
            2 * config.logit_bound * LOG2E * down / tau, dtype=dtype, device=q.device
        )
        return Rule(scale * 2 / config.logit_bound, "sigmoid", 0.0, overflows, causal, dtype), gain
    factor = 1.0 if learned else LOG2E / smallest
    gain = (LOG2E * down / tau).to(dtype) if isinstance(tau, Tensor) else None
    if mode in ("clamp", "relative"):
        bound = config.logit_bound * factor * down
        return Rule(scale * factor, mode, bound, overflows, causal, dtype), gain
    if mode == "norm" and config.score == "dot_product":
        radius = norm_radius(config.logit_bound, q.shape[-1], dtype)
        return Rule(scale * factor, "norm", radius, overflows, causal, dtype), gain
    return Rule(scale * factor, None, 0.0, overflows, causal, dtype), gain


def _per_head(
    temperature: Tensor | None, score_vector: Tensor | None, q: Tensor, config: AttentionConfig
) -> tuple[Tensor | float, Tensor | None]:
    """τ as a number or [B|1, H, 1, 1]; w as None or [B, H, 1, Dh]."""
    B, H, _, Dh = q.shape
    if (score_vector is not None) != (config.score == "additive"):
        got = "additive scores without one" if score_vector is None else "one for dot_product"
        raise InputError(f"expected a score_vector with additive scores only, got {got}")
    tau: Tensor | float = config.temperature
    if temperature is not None:
        _check_per_head("temperature", temperature, B, H)
        tau = temperature.to(wide_dtype(q)).reshape(-1, H, 1, 1)
    if score_vector is not None:
        _check_per_head("score_vector", score_vector, B, H, Dh)
        score_vector = score_vector.to(q.dtype).unsqueeze(-2).expand(B, H, 1, Dh)
    return tau, score_vector


def _check_per_head(name: str, x: Tensor, *shape: int) -> None:
    """Refuse every shape but ``shape``, with or without the batch dimension at its beginning."""
    # The number of dimensions first: shapes of unequal length would compare the batch with the
    # heads, and an exported graph would then hold only where the two differ.
    if x.ndim not in (len(shape) - 1, len(shape)) or tuple(x.shape) != shape[-x.ndim :]:
        raise InputError(
            f"expected {name} of shape {list(shape[1:])} or {list(shape)}, got {list(x.shape)}"
        )


def _checked_bias(
    bias: Tensor | None, q: Tensor, k: Tensor, config: AttentionConfig
) -> Tensor | None:
    if bias is None:
        return None
    if config.score == "additive" or (config.clip is not None and config.clip_mode == "norm"):
        raise InputError(
            "expected no position_bias with additive scores or clip_mode norm, whose bounds it "
            f"would break, got one with score {config.score} and clip_mode "
            f"{config.clip_mode if config.clip else 'none'}"
        )
    H, width = q.shape[1], 2 * max(q.shape[2], k.shape[2]) - 1
    if bias.ndim != 2 or len(bias) != H or bias.shape[1] < width or bias.shape[1] % 2 == 0:
        raise InputError(
            f"expected position_bias of shape [{H}, L] with an odd L >= {width}, "
            f"got {list(bias.shape)}"
        )
    return bias.detach()


def _visible(mask: Tensor | None, q: Tensor, k: Tensor, causal: bool) -> Tensor | None:
    """The mask and the causal triangle in one."""
    if not causal:
        return mask
    triangle = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril()
    return triangle[None, None] if mask is None else mask & triangle


def _checked_mask(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask with four dimensions, after refusing shapes and dtypes that do not fit."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        raise InputError(
            "torch.jit.trace is not supported, nor the ONNX export built on it: the trace would "
            "apply the sizes of its example to every input; use torch.export.export, or "
            "torch.onnx.export with dynamo=True"
        )
    if q.ndim != 4 or k.ndim != 4 or q.shape[:2] != k.shape[:2] or q.shape[3] != k.shape[3]:
        raise InputError(
            "expected q of shape [B, H, Tq, Dh] and k of shape [B, H, Tk, Dh], "
            f"got {list(q.shape)} and {list(k.shape)}"
        )
    if q.dtype not in FLOAT_DTYPES or k.dtype != q.dtype:
        raise InputError(
            f"expected q and k of the same floating dtype, got {q.dtype} and {k.dtype}"
        )
    if mask is None:
        return None
    full = (*q.shape[:3], k.shape[2])
    wanted = (full[0], full[3])
    if mask.dtype == torch.bool and mask.ndim == 2 and tuple(mask.shape) == wanted:
        return mask[:, None, None, :]
    fits = mask.ndim == 4 and all(m in (1, f) for m, f in zip(mask.shape, full, strict=True))
    if mask.dtype != torch.bool or not fits:
        raise InputError(
            f"expected a bool mask of shape {list(wanted)}, or of four dimensions that broadcast "
            f"to {list(full)}, got {mask.dtype} and {list(mask.shape)}"
        )
    return mask
