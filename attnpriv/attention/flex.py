"""Clipped logits inside PyTorch's FlexAttention, for devices whose compiler fuses them.

Source: ``torch.nn.attention.flex_attention`` (Dong et al. 2024, arXiv:2412.05496).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from attnpriv.attention.scores import wide_dtype
from attnpriv.config import AttentionConfig


def flex_attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    config: AttentionConfig,
    causal: bool,
    tau: Tensor | float,
    compiled: bool = True,
) -> Tensor:
    """Weighted sums of the values, [B, H, Tq, Dv]; zeros for a query that sees no key.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        v: values, [B, H, Tk, Dv].
        mask: True where a key may be seen, four dimensions that broadcast to [B, H, Tq, Tk].
        config: clips by ``clamp`` or ``tanh``.
        causal: query i sees the keys up to i only.
        tau: the temperature, a number or [B or 1, H, 1, 1].
        compiled: False, for tests, runs PyTorch's reference implementation, which makes the
            weights.
    """
    score_mod = _score_mod(q, mask, config, causal, tau)
    attend: Any = _compiled() if compiled else flex_attention
    out: Tensor = attend(q, k, v, score_mod=score_mod)
    return out


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention)


def _score_mod(
    q: Tensor,
    mask: Tensor | None,
    config: AttentionConfig,
    causal: bool,
    tau: Tensor | float,
) -> Any:
    clip, bent = config.logit_bound, config.clip_mode == "tanh"
    per_head = None
    if isinstance(tau, Tensor):
        wide = wide_dtype(q)
        per_head = tau.to(wide).expand(*q.shape[:2], 1, 1).flatten(1).contiguous()

    def score_mod(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        clipped = torch.tanh(score / clip) * clip if bent else score.clamp(-clip, clip)
        clipped = clipped / (tau if per_head is None else per_head[b, h])
        if mask is not None:
            where = (x if size > 1 else 0 for x, size in zip((b, h, i, j), mask.shape, strict=True))
            clipped = torch.where(mask[tuple(where)], clipped, -float("inf"))
        return torch.where(i >= j, clipped, -float("inf")) if causal else clipped

    return score_mod
