"""Attention layers: each is a set of projections around the same hardened core.

Shapes: B batch, H heads, T tokens, Tq queries, Tk keys, D model width, Dh = D/H head width.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention.functional import Mask, attend, attention_weights
from attnpriv.attention.packing import Packing
from attnpriv.attention.scores import wide_dtype
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError


class PerRecord(nn.Module):
    """A parameter, repeated once for each record of the batch.

    It is a leaf module whose output has a batch dimension, so that engines for per-record gradients
    can clip it like any other layer.

    Args:
        initial: the parameter's first value, of any shape.
    """

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial)

    def forward(self, batch: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "B ..."]:
        """The parameter as [B, ...], for a detached tensor ``batch`` with B rows.

        Nothing flows back to ``batch``; a hook on the gradient of an attached one would never fire.
        """
        return self.weight.expand(batch.shape[0], *self.weight.shape)


class HardenedAttention(nn.Module):
    """The hardened attention of H heads on projected queries, keys and values.

    It has no parameters unless the configuration asks for some: one number per head if the
    temperature is learned, one vector per head for additive scores.

    Args:
        config: score, temperature and clipping.
        heads: number of heads H.
        head_dim: head width Dh.
        positions: the longest sequence for which a bias by the distance of query and key is added
            to the logits before the clip; None adds no bias.

    Attributes:
        position_bias: the bias as ``attend`` takes it, [H, 2·positions-1], or None. It comes from
            a pretrained encoder and is not trained.
        applications: how many layers of the model run this module. It is above 1 where layers
            share their weights, and then the model sets it.

    Claim: the weights keep the bounds of ``attnpriv.guarantees`` at ``config.logit_bound`` and the
    temperatures that ``temperatures`` returns. With a temperature floor they also keep the bounds
    at the floor, whatever training does. Not covered: what the projections around it do.
    """

    position_bias: Tensor | None

    def __init__(
        self, config: AttentionConfig, heads: int, head_dim: int, positions: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.heads = heads
        self.applications = 1
        bias = None if positions is None else torch.zeros(heads, 2 * positions - 1)
        self.register_buffer("position_bias", bias)
        self.raw_temperature: PerRecord | None = None
        self.score_vector: PerRecord | None = None
        if config.temperature_floor is not None:
            above = config.temperature - config.temperature_floor
            start = above + math.log(-math.expm1(-above))  # the inverse of softplus
            self.raw_temperature = PerRecord(torch.full((heads,), start))
        if config.score == "additive":
            vectors = torch.empty(heads, head_dim).uniform_(-1, 1)
            self.score_vector = PerRecord(vectors / math.sqrt(head_dim))
        self.weights = nn.Identity()  # a place where attribution hooks can see the weights

    def forward(
        self,
        q: Float[Tensor, "B H Tq Dh"],
        k: Float[Tensor, "B H Tk Dh"],
        v: Float[Tensor, "B H Tk Dv"],
        mask: Mask | None = None,
        need_weights: bool = False,
        causal: bool = False,
    ) -> tuple[Float[Tensor, "B H Tq Dv"], Float[Tensor, "B H Tq Tk"] | None]:
        """As ``attend``, with this module's configuration and parameters."""
        batch = q.detach()
        temperature = None if self.raw_temperature is None else self._above_floor(batch)
        vector = None if self.score_vector is None else self.score_vector(batch)
        if need_weights:
            weights = self.weights(
                attention_weights(
                    q, k, mask, self.config,
                    causal=causal, temperature=temperature, score_vector=vector,
                    position_bias=self.position_bias,
                )
            )  # fmt: skip
            return weights @ v, weights
        return attend(
            q, k, v, mask, self.config,
            causal=causal, temperature=temperature, score_vector=vector,
            position_bias=self.position_bias,
        )  # fmt: skip

    @torch.no_grad()
    def temperatures(self) -> list[float]:
        """τ of each head, as trained."""
        if self.raw_temperature is None:
            return [self.config.temperature] * self.heads
        values: list[float] = self._above_floor(torch.empty(1)).squeeze(0).double().tolist()
        return values

    def _above_floor(self, batch: Tensor) -> Tensor:
        assert self.raw_temperature is not None
        assert self.config.temperature_floor is not None
        # In float32, and starting from the next number above the floor: if the floor or the sum
        # were rounded down, the certificate would not hold.
        floor, top = torch.tensor([self.config.temperature_floor, math.inf], dtype=torch.float32)
        temperatures: Tensor = F.softplus(self.raw_temperature(batch).float()) + floor.nextafter(
            top
        )
        return temperatures


class MultiHeadSelfAttention(nn.Module):
    """Self-attention with one fused projection for queries, keys and values.

    Args:
        dim: model width D.
        heads: number of heads H, a divisor of D.
        config: score, temperature and clipping, the same in every head.
        causal: query i sees the tokens up to i only.
        positions: as in ``HardenedAttention``.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        config: AttentionConfig,
        causal: bool = False,
        positions: int | None = None,
    ) -> None:
        super().__init__()
        self.causal = causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.core = HardenedAttention(config, heads, _head_dim(dim, heads), positions)
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B T D"] | Float[Tensor, "N D"],
        mask: Bool[Tensor, "B T"] | Bool[Tensor, "#B #H #T #T"] | Packing | None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "B T D"] | Float[Tensor, "N D"], Float[Tensor, "B H T T"] | None]:
        """Map x [B, T, D] under mask [B, T] to ([B, T, D], weights [B, H, T, T] or None).

        For packed texts, map the tokens [N, D] to ([N, D], None).

        Raises:
            InputError: weights are asked for with packed texts, whose weights have no one shape.
        """
        if isinstance(mask, Packing):
            if need_weights:
                raise InputError("expected padded texts with need_weights=True, got packed ones")
            return self.output(self._attend_packed(self.qkv(x), mask)), None
        q, k, v = (_split(part, self.core.heads) for part in self.qkv(x).chunk(3, dim=-1))
        attended, weights = self.core(q, k, v, mask, need_weights, self.causal)
        return self.output(_join(attended)), weights

    def _attend_packed(self, projected: Tensor, packing: Packing) -> Tensor:
        """Queries, keys and values of packed texts, [N, 3D], to [N, D].

        Half precision is widened to float32: a kernel for halves is kept for every new shape, and
        groups come in many shapes.
        """
        wide, heads = wide_dtype(projected), self.core.heads
        padded = packing.pad(projected)
        out = padded.new_empty(len(padded), padded.shape[-1] // 3)
        for group in packing.groups:
            parts = group.part(padded).view(*group.sources.shape, 3, heads, -1)
            # Moving and widening in one step takes longer than one after the other.
            q, k, v = parts.permute(2, 0, 3, 1, 4).contiguous().to(wide)
            attended, _ = self.core(q, k, v, group.mask, causal=self.causal)
            _split(group.part(out), heads).copy_(attended)
        return packing.unpad(out)


class MultiHeadCrossAttention(nn.Module):
    """Attention of one sequence to another.

    Args:
        dim: model width D of the queries and of the output.
        heads: number of heads H, a divisor of D.
        config: score, temperature and clipping, the same in every head.
        context_dim: width of the sequence attended to; None means D.
    """

    def __init__(
        self, dim: int, heads: int, config: AttentionConfig, context_dim: int | None = None
    ) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(context_dim or dim, 2 * dim)
        self.core = HardenedAttention(config, heads, _head_dim(dim, heads))
        self.output = nn.Linear(dim, dim)

    def forward(
        self,
        x: Float[Tensor, "B Tq D"],
        context: Float[Tensor, "B Tk C"],
        mask: Mask | None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "B Tq D"], Float[Tensor, "B H Tq Tk"] | None]:
        """Map x [B, Tq, D] and context [B, Tk, C] to ([B, Tq, D], weights [B, H, Tq, Tk] or None).

        The mask [B, Tk] says which tokens of the context may be seen.
        """
        q = _split(self.query(x), self.core.heads)
        k, v = (_split(part, self.core.heads) for part in self.key_value(context).chunk(2, dim=-1))
        attended, weights = self.core(q, k, v, mask, need_weights)
        return self.output(_join(attended)), weights


class AttentionPooling(nn.Module):
    """Pool a sequence to one vector: one learned query per head attends to the tokens.

    Args:
        dim: model width D.
        heads: number of heads H, a divisor of D.
        config: score, temperature and clipping, the same in every head.
    """

    def __init__(self, dim: int, heads: int, config: AttentionConfig) -> None:
        super().__init__()
        head_dim = _head_dim(dim, heads)
        self.query = PerRecord(torch.randn(heads, 1, head_dim) / math.sqrt(head_dim))
        self.key_value = nn.Linear(dim, 2 * dim)
        self.core = HardenedAttention(config, heads, head_dim)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"] | None,
        need_weights: bool = False,
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B H 1 T"] | None]:
        """Map x [B, T, D] under mask [B, T] to ([B, D], weights [B, H, 1, T] or None)."""
        k, v = (_split(part, self.core.heads) for part in self.key_value(x).chunk(2, dim=-1))
        q = self.query(x.detach()).to(k.dtype)
        pooled, weights = self.core(q, k, v, mask, need_weights)
        return _join(pooled).squeeze(1), weights


def _head_dim(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise InputError(f"expected heads to divide dim {dim}, got {heads}")
    return dim // heads


def _split(x: Tensor, heads: int) -> Tensor:
    """[B, T, D] to [B, H, T, Dh]."""
    return x.view(*x.shape[:-1], heads, -1).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    """[B, H, T, Dh] to [B, T, D]."""
    return x.transpose(1, 2).flatten(2)
