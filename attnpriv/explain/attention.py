"""Attention as an explanation: what each position receives, by weights, by rollout, by value norms.

Rollout follows the residual stream: at each layer half of a position stays, half is mixed by the
mean of the heads, and the layers are multiplied. The norm of a value counts what a weight carries:
a key that is attended to but whose value vector is short adds little.

Not covered: rollout ignores the feed-forward layers, values and norms; norms of values ignore the
residual, the layer norms and how heads cancel each other.

Shapes: B batch, L layers, H heads, T positions, Dh head width, D model width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, MultiHeadSelfAttention
from attnpriv.modality import AttentionModel, Embedded


def attention_received(
    weights: Sequence[Float[Tensor, "B H T T"]], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B L H T"]:
    """The mass that each key gets, averaged over the visible queries.

    Args:
        weights: of L layers, each [B, H, T, T].
        mask: True where a position is, [B, T].

    Returns:
        [B, L, H, T]; each row sums to 1 over T, padding gets 0.
    """
    queries = mask / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.stack(
        [torch.einsum("bhqk,bq->bhk", layer, queries.to(layer.dtype)) for layer in weights], dim=1
    )


def last_attention(
    model: AttentionModel, example: Embedded, target: Int[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """The attention that each position gets in the last layer, mean over heads and queries, [B, T].

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: not used; it makes this a scorer like those that explain one class.
    """
    weights = model.run(example.x, example.mask, need_maps=True).self_attention()
    return attention_received(weights[-1:], example.mask).mean((1, 2))


def rollout(weights: Float[Tensor, "L H T T"]) -> Float[Tensor, "T T"]:
    """How much of each input position reaches each position after the last layer.

    Args:
        weights: one document's, [L, H, T, T], first layer first.

    Returns:
        [T, T]: ``A_L ... A_1`` with ``A = W/2 + I/2``, W the mean of a layer's heads; rows sum to 1
        where those of the weights do.

    Source: Abnar and Zuidema 2020 (arXiv:2005.00928), equation 1 and section 3.
    """
    identity = torch.eye(weights.shape[-1], dtype=weights.dtype)
    flow = identity
    for layer in weights.mean(1):
        flow = (0.5 * layer + 0.5 * identity) @ flow
    return flow


def rollout_received(
    model: AttentionModel, example: Embedded, target: Int[Tensor, " B"]
) -> Float[Tensor, "B T"]:
    """How much of each position reaches the last layer, mean over the visible queries, [B, T].

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: as in ``last_attention``.
    """
    mask = example.mask
    seen = model.run(example.x, mask, need_maps=True)
    weights = torch.stack(seen.self_attention(), dim=1)
    queries = mask / mask.sum(1, keepdim=True)
    reached = [row @ rollout(own) for row, own in zip(queries, weights, strict=True)]
    return torch.stack(reached) * mask


def value_norms(
    values: Float[Tensor, "*batch H T Dh"], output: Float[Tensor, "D heads"]
) -> Float[Tensor, "*batch H T"]:
    """The lengths of the vectors that keys send, per unit of weight: ``‖f(x)‖``.

    Args:
        values: value vectors [..., H, T, Dh], their bias included.
        output: weight of the projection after the heads, [D, H·Dh].

    Returns:
        [..., H, T]; times a weight it is that head's ``‖α f(x)‖``.

    Source: Kobayashi et al. 2020 (arXiv:2004.10102), section 3.
    """
    return _norms(values, _gram(output, values.shape[-3]))


def _gram(output: Tensor, heads: int) -> Tensor:
    """``WᵀW`` of each head's part W of the projection, [H, Dh, Dh].

    ``‖W v‖² = v·(WᵀW)v`` needs no more; W v itself would be H times the output.
    """
    own = output.view(len(output), heads, -1).transpose(0, 1)  # [H, D, Dh]
    return own.transpose(1, 2) @ own


def _norms(values: Tensor, gram: Tensor) -> Tensor:
    return ((values @ gram) * values).sum(-1).clamp(min=0).sqrt()


@contextmanager
def recorded_value_norms(model: AttentionModel) -> Iterator[list[Tensor]]:
    """Collect ``value_norms`` of every layer, L times [B, H, T], while the model runs.

    Where nothing projects what the heads return, the norms are those of the values themselves. The
    caller empties the list between forward passes.
    """
    norms: list[Tensor] = []

    def record(gram: Tensor | None, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        values = arguments[2]
        norms.append(values.norm(dim=-1) if gram is None else _norms(values, gram))

    handles = [
        core.register_forward_pre_hook(partial(record, gram)) for core, gram in _cores(model)
    ]
    try:
        yield norms
    finally:
        for handle in handles:
            handle.remove()


def _cores(model: AttentionModel) -> Iterator[tuple[HardenedAttention, Tensor | None]]:
    """Each layer's attention with ``_gram`` of the projection after its heads; None without one."""
    modules = list(model.blocks.modules())
    grams = {
        each.core: _gram(each.output.weight, each.core.heads)
        for each in modules
        if isinstance(each, MultiHeadSelfAttention)
    }
    return ((each, grams.get(each)) for each in modules if isinstance(each, HardenedAttention))
