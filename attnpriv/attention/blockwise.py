"""Attention without the weights: a block of them at a time, forward and backward.

A bounded logit can be exponentiated as it is: no running maximum is needed and nothing overflows.
So the weights of a row are ``e/l`` with ``e = 2^(gain·clip(u))`` and l the sum of e, and a block of
e lives in the cache between two matrix products. The backward pass makes the blocks again (Dao et
al. 2022, arXiv:2205.14135), so that neither pass holds a [Tq, Tk] tensor.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, Dv value width; inside a group of G
heads, [G, T, Dh].
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attnpriv.attention.scores import (
    additive_pairs,
    bias_of_pairs,
    largest_of_rows,
    shorten_backward,
    shorten_forward,
    wide_dtype,
    without_autocast,
)

LN2 = math.log(2)
# Less than any sum: exponents that cannot overflow are above -31, and of others the largest is 0.
LEAST_SUM = 2.0**-40
BLOCK_BYTES = 1 << 20  # of one block: a core's second-level cache holds a few of them


@dataclass(frozen=True)
class Rule:
    """How the score u of a query and a key becomes the exponent ``gain·clip(u)``.

    Attributes:
        scale: factor of the dot product in u; additive scores have none.
        clip: ``clamp`` cuts u at ±bound; ``sigmoid`` maps u to (0, 1), which up to a factor and a
            shift, that a softmax does not see, is tanh of u/2; ``relative`` takes off the row's
            largest u and raises the rest to -2·bound; ``norm`` shortens queries and keys to the
            norm ``bound`` instead; None changes nothing.
        bound: see ``clip``.
        overflows: whether an exponent can leave the range of float32; then the row's largest is
            subtracted first.
        causal: whether query i sees the keys up to i only.
    """

    scale: float
    clip: Literal["clamp", "sigmoid", "relative", "norm"] | None
    bound: float
    overflows: bool
    causal: bool


def blockwise_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gain: Tensor | None,
    vector: Tensor | None,
    bias: Tensor | None,
    mask: Tensor | None,
    rule: Rule,
) -> Tensor:
    """Weighted sums of the values, [B, H, Tq, Dv]; zeros for a query that sees no key.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        v: values, [B, H, Tk, Dv].
        gain: [B, H, 1, 1], or None for 1.
        vector: w of additive scores ``u = w·tanh(q + k)``, [B, H, 1, Dh]; None for dot products.
        bias: added to u, by distance as in ``bias_of_pairs``, [H, 2L-1]; None for none.
        mask: True where a key may be seen, four dimensions that broadcast to [B, H, Tq, Tk].
        rule: how a score becomes an exponent.

    Differentiable once, by every tensor but mask and bias.
    """
    if torch.is_grad_enabled():  # what autograd calls comes back here, with gradients off
        inputs = (q, k, v, gain, vector, bias, mask, rule)
        learning: Tensor = _Blockwise.apply(*inputs)  # type: ignore[no-untyped-call]
        return learning
    out = q.new_empty(*q.shape[:3], v.shape[-1])
    for where in _groups(q, k, vector):
        group = _Group(where, q, k, v, gain, vector, bias, mask, rule, dtype=q.dtype)
        for rows in group.query_blocks():
            group.forward(rows, out[*where, rows])
    return out


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        *tensors, ctx.rule = inputs
        ctx.save_for_backward(*tensors)
        return blockwise_attention(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, gain, vector, bias, mask = ctx.saved_tensors
        grads = [None if x is None else torch.zeros_like(x) for x in (q, k, v, gain, vector)]
        with without_autocast(q):
            for where in _groups(q, k, vector):
                dtype = wide_dtype(q)
                group = _Group(where, q, k, v, gain, vector, bias, mask, ctx.rule, dtype=dtype)
                for rows in group.query_blocks():
                    group.backward(rows, grad[*where, rows], ctx.needs_input_grad[3])
                for whole, part in zip(grads, group.gradients(), strict=True):
                    if whole is not None and part is not None:
                        whole[where] = part.view_as(whole[where])
        return (*grads, None, None, None)


class _Group:
    """Some heads of some texts, flattened to G, with the gradients of their inputs.

    Half precision goes forward as it is, and backward in float32: a gradient is a difference of
    numbers of similar size, of which it would leave little.
    """

    def __init__(
        self,
        where: tuple[slice, slice],
        q: Tensor,
        k: Tensor,
        v: Tensor,
        gain: Tensor | None,
        vector: Tensor | None,
        bias: Tensor | None,
        mask: Tensor | None,
        rule: Rule,
        dtype: torch.dtype,
    ) -> None:
        self.shape = (*q[where].shape[:2],)
        self.q, self.k, self.v = (_flat(x[where]).to(dtype) for x in (q, k, v))
        self.gain = None if gain is None else _flat(gain[where]).to(dtype)
        self.vector = None if vector is None else _flat(vector[where]).to(dtype)
        self.bias = None if bias is None else bias[where[1]].to(dtype)
        self.mask = None if mask is None else mask.expand(*q.shape[:2], -1, -1)[where]
        self.rule = rule
        if rule.clip == "norm":
            self.q, self.q_factor = shorten_forward(self.q, rule.bound)
            self.k, self.k_factor = shorten_forward(self.k, rule.bound)
        self.sums: dict[str, Tensor] = {}  # gradients, summed over the query blocks

    def query_blocks(self) -> Iterator[slice]:
        step = max(1, _rows_of_block(self.k, self.vector) // len(self.k))
        for start in range(0, self.q.shape[1], step):
            yield slice(start, min(start + step, self.q.shape[1]))

    def forward(self, rows: slice, out: Tensor) -> None:
        """Put the output of a query block into ``out`` [b, h, t, Dv]."""
        u = self._scores(rows)
        e = self._exponentials(self._clip(u, rows, out=u), rows, keep=False)
        flat = out.view(len(e), *out.shape[2:])
        torch.bmm(e, self.v[:, self._keys(rows)], out=flat).div_(self._row_sums(e))

    def backward(self, rows: slice, grad: Tensor, learns_gain: bool) -> None:
        """Add a query block's share, given the gradient by its output [b, h, t, Dv]."""
        u = self._scores(rows)
        clipped = self._clip(u, rows)
        e = self._exponentials(clipped, rows, keep=True)
        total = self._row_sums(e)
        g = _flat(grad).to(e.dtype) / total
        self._add("v", self._keys(rows), e.mT @ g)
        dz = torch.bmm(g, self.v[:, self._keys(rows)].mT).mul_(e)
        dz.addcmul_(e, dz.sum(-1, keepdim=True) / -total)
        if learns_gain:
            self._add("gain", slice(None), (dz * clipped).sum((1, 2), keepdim=True) * LN2)
        self._scores_backward(self._clip_backward(dz, u, clipped), rows)

    def _row_sums(self, e: Tensor) -> Tensor:
        """[G, t, 1], and not 0 for a row without visible keys, whose e are all 0."""
        total = e.sum(-1, keepdim=True, dtype=wide_dtype(e))
        return total if self.mask is None else total.clamp_(min=LEAST_SUM)

    def gradients(self) -> tuple[Tensor | None, ...]:
        """In the order of the inputs, flattened to G."""
        if self.rule.clip == "norm":
            for name, x, factor in (("q", self.q, self.q_factor), ("k", self.k, self.k_factor)):
                self.sums[name] = shorten_backward(self.sums[name], x, factor, self.rule.bound)
        return tuple(self.sums.get(name) for name in ("q", "k", "v", "gain", "vector"))

    def _add(self, name: str, where: slice, value: Tensor) -> None:
        whole: Tensor = getattr(self, name)
        if name in self.sums:
            self.sums[name][:, where] += value
        elif value.shape == whole.shape:
            self.sums[name] = value
        else:
            self.sums[name] = torch.zeros_like(whole)
            self.sums[name][:, where] = value

    def _keys(self, rows: slice) -> slice:
        """The keys that any query of the block may see."""
        return slice(0, min(rows.stop, self.k.shape[1])) if self.rule.causal else slice(None)

    def _scores(self, rows: slice) -> Tensor:
        keys = self._keys(rows)
        q, k, scale = self.q[:, rows], self.k[:, keys], self.rule.scale
        if self.vector is None:  # the scale inside the matrix product costs nothing
            u = torch.baddbmm(q.new_empty(1, 1, 1), q, k.mT, beta=0, alpha=scale)
            if self.bias is not None:
                bias = bias_of_pairs(self.bias, rows, slice(0, k.shape[1]))
                u.view(*self.shape, *u.shape[1:]).add_(bias)
            return u
        return (additive_pairs(q, k) @ self.vector.mT.unsqueeze(1)).squeeze(-1).mul_(scale)

    def _scores_backward(self, du: Tensor, rows: slice) -> None:
        keys = self._keys(rows)
        q, k = self.q[:, rows], self.k[:, keys]
        # Constant within a head, so that gain and base can wait until the block is summed up.
        scale: Tensor | float = self.rule.scale * LN2
        if self.gain is not None:
            scale = self.gain * scale
        if self.vector is None:
            self._add("q", rows, torch.bmm(du, k).mul_(scale))
            self._add("k", keys, torch.bmm(du.mT, q).mul_(scale))
            return
        pairs, du = additive_pairs(q, k), du.unsqueeze(-1)
        self._add("vector", slice(None), (du * pairs).sum((1, 2)).unsqueeze(1) * scale)
        through = (1 - pairs * pairs).mul_(du).mul_(self.vector.unsqueeze(1))
        self._add("q", rows, through.sum(2) * scale)
        self._add("k", keys, through.sum(1) * scale)

    def _clip(self, u: Tensor, rows: slice, out: Tensor | None = None) -> Tensor:
        match self.rule.clip:
            case "clamp":
                return torch.clamp(u, -self.rule.bound, self.rule.bound, out=out)
            case "sigmoid":
                return torch.sigmoid(u, out=out)
            case "relative":
                return self._raise_lowest(u, rows)
            case "norm" | None:
                return u

    def _clip_backward(self, grad: Tensor, u: Tensor, clipped: Tensor) -> Tensor:
        match self.rule.clip:
            case "clamp":
                bound = self.rule.bound
                return torch.ops.aten.hardtanh_backward(grad, u, -bound, bound)  # type: ignore[no-any-return]
            case "sigmoid":
                return torch.ops.aten.sigmoid_backward(grad, clipped)  # type: ignore[no-any-return]
            case "relative":
                return self._raise_lowest_backward(grad, clipped)
            case "norm" | None:
                return grad

    def _raise_lowest(self, u: Tensor, rows: slice) -> Tensor:
        """``scores.raise_lowest``, in place."""
        visible = self._visible(rows)
        if visible is not None:
            u.masked_fill_(~visible, -math.inf)
        return u.sub_(largest_of_rows(u)).clamp_(-2 * self.rule.bound, 0)

    def _raise_lowest_backward(self, grad: Tensor, clipped: Tensor) -> Tensor:
        """What was raised moves with the largest of its row, an equal share with each of them.

        The gradient by a row sums up to 0, so that what the raised ones have is known by the rest.
        """
        kept: Tensor = torch.ops.aten.hardtanh_backward(grad, clipped, -2 * self.rule.bound, 1.0)
        largest = clipped.sign().add_(1)  # 1 there, 0 elsewhere; a search would take far longer
        share = kept.sum(-1, keepdim=True).div_(largest.sum(-1, keepdim=True).clamp_(min=1))
        return kept.addcmul_(largest, share, value=-1)

    def _exponentials(self, clipped: Tensor, rows: slice, keep: bool) -> Tensor:
        """``2^(gain·clipped)``, and 0 where the key may not be seen."""
        gain = 1.0 if self.gain is None else self.gain
        x = clipped * gain if keep else clipped if self.gain is None else clipped.mul_(gain)
        visible = self._visible(rows)
        if self.rule.overflows:
            if visible is not None:
                x.masked_fill_(~visible, -math.inf)
            x.sub_(largest_of_rows(x))
        x.exp2_()
        if visible is not None and not self.rule.overflows:
            x.mul_(visible.to(x.dtype))  # a fraction of the time of a fill
        return x

    def _visible(self, rows: slice) -> Tensor | None:
        """True where a query of the block may see a key; broadcasts to [G, t, keys]."""
        keys, visible = self._keys(rows), None
        if self.mask is not None:
            own = self.mask if self.mask.shape[2] == 1 else self.mask[:, :, rows]
            visible = _flat(own[..., keys])
        if self.rule.causal:
            query = torch.arange(rows.start, rows.stop, device=self.q.device)
            key = torch.arange(self.k.shape[1], device=self.q.device)[keys]
            earlier = key <= query[:, None]
            visible = earlier if visible is None else visible & earlier
        return visible


def _groups(q: Tensor, k: Tensor, vector: Tensor | None) -> Iterator[tuple[slice, slice]]:
    """Cut batch and heads so that a group, or a query block of one head, is a block."""
    B, H, Tq, _ = q.shape
    rows = _rows_of_block(k, vector)
    heads, batch = max(1, rows // max(1, Tq)), max(1, rows // max(1, Tq * H))
    for b in range(0, B, batch):
        for h in range(0, H, heads):
            yield slice(b, min(b + batch, B)), slice(h, min(h + heads, H))


def _rows_of_block(k: Tensor, vector: Tensor | None) -> int:
    """How many rows of weights make a block; additive scores need a vector for each weight."""
    width = k.shape[-2] * (1 if vector is None else k.shape[-1])
    return max(1, BLOCK_BYTES // (k.element_size() * max(1, width)))


def _flat(x: Tensor) -> Tensor:
    """[b, h, ...] to [G, ...]."""
    return x.flatten(0, 1)
