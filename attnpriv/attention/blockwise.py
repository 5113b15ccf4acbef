"""Attention without a tensor of all weights: a block of them at a time, forward and backward.

A bounded logit can be exponentiated as it is: no running maximum is needed and nothing overflows.
The weights of a row are ``e/l`` with ``e = 2^(gain·clip(u))`` and l the sum of e; a block of e
stays in the cache between two matrix products. The backward pass computes the blocks again (Dao et
al. 2022, arXiv:2205.14135), so that neither pass holds a [Tq, Tk] tensor.

All blocks are written to the same memory: new memory would not be in the cache, or would come from
the system, which zeroes it first.

Shapes: B batch, H heads, Tq queries, Tk keys, Dh head width, Dv value width; inside a group of G
heads, [G, T, Dh].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
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
from attnpriv.attention.threads import divide, threads_for

LN2 = math.log(2)
# Below every sum: exponents that cannot overflow are above -31; of the others, the largest is 0.
LEAST_SUM = 2.0**-40
BLOCK_BYTES = 1 << 20  # size of a block: a core's caches hold a few of them

# The arguments of ``blockwise_attention``, in order.
Inputs = tuple[
    Tensor, Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, "Rule"
]
DIFFERENTIATED = ("q", "k", "v", "gain", "vector")


@dataclass(frozen=True)
class Rule:
    """How the score u of a query and a key becomes the exponent ``gain·clip(u)``.

    Attributes:
        scale: factor of the score in u.
        clip: ``clamp`` cuts u at ±bound. ``sigmoid`` maps u to (0, 1), which is tanh of u/2 up to a
            factor and a shift that a softmax ignores. ``relative`` subtracts the row's largest u
            and raises what is then below -2·bound to it. ``norm`` shortens queries and keys to the
            norm ``bound`` instead. None changes nothing.
        bound: see ``clip``.
        overflows: whether an exponent can leave the range of float32; then the row's largest is
            subtracted first.
        causal: whether query i sees the keys up to i only.
        dtype: dtype of the forward pass.
    """

    scale: float
    clip: Literal["clamp", "sigmoid", "relative", "norm"] | None
    bound: float
    overflows: bool
    causal: bool
    dtype: torch.dtype


def blockwise_attention(
    q: Float[Tensor, "B H Tq Dh"],
    k: Float[Tensor, "B H Tk Dh"],
    v: Float[Tensor, "B H Tk Dv"],
    gain: Float[Tensor, "B H 1 1"] | None,
    vector: Float[Tensor, "B H 1 Dh"] | None,
    bias: Float[Tensor, "H distances"] | None,
    mask: Bool[Tensor, "#B #H #Tq #Tk"] | None,
    rule: Rule,
) -> Float[Tensor, "B H Tq Dv"]:
    """Weighted sums of the values, [B, H, Tq, Dv]; zeros for a query that sees no key.

    Args:
        q: queries, [B, H, Tq, Dh].
        k: keys, [B, H, Tk, Dh].
        v: values, [B, H, Tk, Dv].
        gain: factor of the clipped score, [B, H, 1, 1]; None means 1.
        vector: w of additive scores ``u = w·tanh(q + k)``, [B, H, 1, Dh]; None for dot products.
        bias: added to u by distance, as in ``bias_of_pairs``, [H, 2L-1]; None adds nothing.
        mask: True where a key may be seen, four dimensions that broadcast to [B, H, Tq, Tk].
        rule: how a score becomes an exponent.

    Can be differentiated once, by every tensor but mask and bias.
    """
    inputs = (q, k, v, gain, vector, bias, mask, rule)
    if torch.is_grad_enabled():  # autograd calls this function again, with gradients off
        learning: Tensor = _Blockwise.apply(*inputs)  # type: ignore[no-untyped-call]
        return learning
    out = q.new_empty(*q.shape[:3], v.shape[-1])
    flat = out.flatten(0, 1)

    def forward(where: slice, group: _Group) -> None:
        for rows in group.query_blocks():
            group.forward(rows, _part(flat[where], rows))

    _Cut(inputs, rule.dtype, blocks=1).each_group(forward)
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
        inputs = (*ctx.saved_tensors, ctx.rule)
        named = zip(DIFFERENTIATED, inputs, ctx.needs_input_grad, strict=False)
        grads = {name: x.new_empty(x.shape) for name, x, needed in named if needed}
        flat = {name: x.flatten(0, 1) for name, x in grads.items()}
        # A gradient is a difference of similar numbers, of which half precision would leave little.
        cut = _Cut(inputs, wide_dtype(grad), blocks=3, grad=grad)

        def backward(where: slice, group: _Group) -> None:
            for rows in group.query_blocks():
                group.backward(rows, learns_gain="gain" in grads)
            for name, whole in flat.items():
                whole[where] = group.gradient(name)

        with without_autocast(grad):
            cut.each_group(backward)
        return (*(grads.get(name) for name in DIFFERENTIATED), None, None, None)


class _Space:
    """Memory that one group after the other writes to.

    Args:
        memory: one flat row of memory per block.
        rows: number of query rows in a block.
        short: memory for the shortened queries and keys of a group; empty where none are shortened.
    """

    def __init__(self, memory: Tensor, rows: int, short: list[Tensor]) -> None:
        self.rows, self.short = rows, short
        self._memory, self._blocks = memory, list(memory)
        self._shape: tuple[int, ...] = ()

    def blocks(self, *shape: int) -> list[Tensor]:
        if shape != self._shape:  # views are kept, since making one costs microseconds
            size = math.prod(shape)
            self._shape, self._blocks = shape, [x[:size].view(shape) for x in self._memory]
        return self._blocks


class _Group:
    """Some heads of some texts, flattened to G, with the gradients of their inputs.

    Args:
        tensors: the group's part of each tensor named in DIFFERENTIATED that is not None,
            [G, ...]; in the backward pass also of ``grad``, the gradient by the output.
        bias: the part of the group's heads, or None.
        mask: [G, 1 or Tq, Tk], or None.
        rule: how a score becomes an exponent.
        space: memory for blocks.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor],
        bias: Tensor | None,
        mask: Tensor | None,
        rule: Rule,
        space: _Space,
    ) -> None:
        self.tensors = tensors
        self.q, self.k, self.v = tensors["q"], tensors["k"], tensors["v"]
        self.gain, self.vector = tensors.get("gain"), tensors.get("vector")
        self.bias, self.mask, self.rule, self.space = bias, mask, rule, space
        self.factors: dict[str, Tensor] = {}  # the factors that shortened queries and keys
        if rule.clip == "norm":
            self.q, self.factors["q"] = shorten_forward(self.q, rule.bound, space.short[0])
            self.k, self.factors["k"] = shorten_forward(self.k, rule.bound, space.short[1])
        self.sums: dict[str, Tensor] = {}  # gradients, summed over the query blocks

    def query_blocks(self) -> Iterator[slice]:
        Tq, step = self.q.shape[1], max(1, self.space.rows // len(self.q))
        for start in range(0, Tq, step):
            yield slice(start, min(start + step, Tq))

    def forward(self, rows: slice, out: Tensor) -> None:
        """Write the output of a query block to ``out`` [G, t, Dv]."""
        u, *_ = self._blocks(rows)
        self._scores(rows, out=u)
        self._clip(u, rows)
        e = self._exponentials(u, rows, out=u)
        into = out if out.dtype == e.dtype else None
        sums = torch.bmm(e, self._seen(self.v, rows), out=into).div_(self._row_sums(e))
        if sums is not out:
            out.copy_(sums)

    def backward(self, rows: slice, learns_gain: bool) -> None:
        """Add a query block's share of the gradients."""
        u, e, dz = self._blocks(rows)
        self._scores(rows, out=u)
        self._clip(u, rows)
        self._exponentials(u, rows, out=e)
        total = self._row_sums(e)
        g = _part(self.tensors["grad"], rows) / total
        self._seen(self._sum("v"), rows).baddbmm_(e.mT, g)
        slope = self.rule.scale * LN2
        factor = slope if self.gain is None else self.gain * slope
        g.mul_(factor)  # constant within a head, so it may be applied before the sums
        torch.bmm(g, self._seen(self.v, rows).mT, out=dz).mul_(e)
        dz.addcmul_(e, dz.sum(-1, keepdim=True).div_(total), value=-1)
        if learns_gain:
            share = torch.mul(dz, u, out=e).sum((1, 2), keepdim=True)
            self._sum("gain").add_(share * (LN2 / factor))
        self._clip_backward(dz, u, spare=e)
        self._scores_backward(dz, rows)

    def gradient(self, name: str) -> Tensor:
        """The gradient by the input of that name, flattened to G."""
        total = self._sum(name)
        if name not in self.factors:
            return total
        return shorten_backward(total, getattr(self, name), self.factors[name], self.rule.bound)

    def _sum(self, name: str) -> Tensor:
        if name not in self.sums:
            self.sums[name] = torch.zeros_like(getattr(self, name))
        return self.sums[name]

    def _row_sums(self, e: Tensor) -> Tensor:
        """The sum of each row, [G, t, 1]; not 0 even where no key is visible and every e is 0."""
        total = e.sum(-1, keepdim=True, dtype=wide_dtype(e))
        return total if self.mask is None else total.clamp_(min=LEAST_SUM)

    def _keys(self, rows: slice) -> slice:
        """The keys that any query of the block may see."""
        end = self.k.shape[1]
        return slice(0, min(rows.stop, end) if self.rule.causal else end)

    def _seen(self, x: Tensor, rows: slice) -> Tensor:
        return _part(x, self._keys(rows))

    def _blocks(self, rows: slice) -> list[Tensor]:
        """Memory for all pairs of the block's queries and their keys, [G, t, keys] each."""
        return self.space.blocks(len(self.q), rows.stop - rows.start, self._keys(rows).stop)

    def _scores(self, rows: slice, out: Tensor) -> None:
        q, k, scale = _part(self.q, rows), self._seen(self.k, rows), self.rule.scale
        if self.vector is not None:
            products = additive_pairs(q, k) @ self.vector.mT.unsqueeze(1)
            torch.mul(products.squeeze(-1), scale, out=out)
            return
        torch.baddbmm(out, q, k.mT, beta=0, alpha=scale, out=out)  # applies the scale for free
        if self.bias is not None:
            bias = bias_of_pairs(self.bias, rows, self._keys(rows))
            out.view(-1, *bias.shape).add_(bias)

    def _scores_backward(self, du: Tensor, rows: slice) -> None:
        q, k = _part(self.q, rows), self._seen(self.k, rows)
        dq, dk = _part(self._sum("q"), rows), self._seen(self._sum("k"), rows)
        if self.vector is None:
            dq.baddbmm_(du, k)
            dk.baddbmm_(du.mT, q)
            return
        pairs, du = additive_pairs(q, k), du.unsqueeze(-1)
        self._sum("vector").add_((du * pairs).sum((1, 2)).unsqueeze(1))
        through = (1 - pairs * pairs).mul_(du).mul_(self.vector.unsqueeze(1))
        dq.add_(through.sum(2))
        dk.add_(through.sum(1))

    def _clip(self, u: Tensor, rows: slice) -> None:
        """Clip u in place."""
        match self.rule.clip:
            case "clamp":
                u.clamp_(-self.rule.bound, self.rule.bound)
            case "sigmoid":
                u.sigmoid_()
            case "relative":  # as ``scores.raise_lowest``
                visible = self._visible(rows)
                if visible is not None:
                    u.masked_fill_(~visible, -math.inf)
                u.sub_(largest_of_rows(u)).clamp_(-2 * self.rule.bound, 0)

    def _clip_backward(self, grad: Tensor, clipped: Tensor, spare: Tensor) -> None:
        """Turn the gradient by ``clip(u)`` into the gradient by u, in place."""
        bound = self.rule.bound
        match self.rule.clip:
            case "clamp":
                _pass_between(-bound, bound, grad, clipped)
            case "sigmoid":
                torch.ops.aten.sigmoid_backward.grad_input(grad, clipped, grad_input=grad)
            case "relative":
                # A raised score moves with the largest of its row; where several are the largest,
                # with each in equal shares. The gradients of a row sum to 0, so what is missing
                # from the sum of the others belongs to the raised ones.
                _pass_between(-2 * bound, 1, grad, clipped)
                largest = torch.eq(clipped, 0, out=spare)
                count = largest.sum(-1, keepdim=True).clamp_(min=1)
                share = grad.sum(-1, keepdim=True).div_(count)
                grad.addcmul_(largest, share, value=-1)

    def _exponentials(self, clipped: Tensor, rows: slice, out: Tensor) -> Tensor:
        """``2^(gain·clip(u))``, and 0 where the key is hidden."""
        x, visible = clipped, self._visible(rows)
        if self.gain is not None:
            x = torch.mul(x, self.gain, out=out)
        if self.rule.overflows:
            if visible is not None:
                x = out.copy_(x).masked_fill_(~visible, -math.inf)
            x = torch.sub(x, largest_of_rows(x), out=out)
        torch.exp2(x, out=out)
        if visible is not None and not self.rule.overflows:
            out.mul_(visible.to(out.dtype))  # takes a fraction of the time of masked_fill_
        return out

    def _visible(self, rows: slice) -> Tensor | None:
        """True where a query of the block may see a key; broadcasts to [G, t, keys]."""
        keys, visible = self._keys(rows), self.mask
        if visible is not None:
            visible = visible[:, :, keys] if visible.shape[1] == 1 else visible[:, rows, keys]
        if self.rule.causal:
            query = torch.arange(rows.start, rows.stop, device=self.q.device)
            key = torch.arange(keys.stop, device=self.q.device)
            earlier = key <= query[:, None]
            visible = earlier if visible is None else visible & earlier
        return visible


class _Cut:
    """How batch and heads are cut, so that a group or a query block of one head fills a block.

    Args:
        inputs: the arguments of ``blockwise_attention``.
        dtype: dtype to compute in.
        blocks: number of blocks that a group needs at a time.
        grad: the gradient by the output, in the backward pass.
    """

    def __init__(
        self, inputs: Inputs, dtype: torch.dtype, blocks: int, grad: Tensor | None = None
    ) -> None:
        self.inputs, self.dtype, self.blocks = inputs, dtype, blocks
        named = (*zip(DIFFERENTIATED, inputs, strict=False), ("grad", grad))
        self.tensors = {name: x for name, x in named if isinstance(x, Tensor)}
        q, k, _, _, vector, *_ = inputs
        (B, H, Tq, _), Tk = q.shape, k.shape[2]
        width = Tk * (1 if vector is None else k.shape[3])  # additive: a vector for each key
        self.threads = threads_for(B * H * Tq * width, q.device)
        block = max(1, BLOCK_BYTES // (dtype.itemsize * max(1, width)))
        self.rows = min(block, -(-B * H // self.threads) * Tq)
        self.batch = max(1, self.rows // max(1, Tq * H))
        self.heads = H if self.batch > 1 else max(1, self.rows // max(1, Tq))

    def each_group(self, work: Callable[[slice, _Group], None]) -> None:
        """Call ``work`` with each group and its position among all B·H heads."""
        B, H = self.inputs[0].shape[:2]
        firsts = [(b, h) for b in range(0, B, self.batch) for h in range(0, H, self.heads)]

        def on_a_thread(firsts: Iterator[tuple[int, int]]) -> None:
            space = self._space()
            for b, h in firsts:
                group = self._group(slice(b, b + self.batch), slice(h, h + self.heads), space)
                work(slice(b * H + h, b * H + h + len(group.q)), group)

        divide(on_a_thread, firsts, self.threads)

    def _space(self) -> _Space:
        q, k, *_, rule = self.inputs
        shortened = (q, k) if rule.clip == "norm" else ()
        most = self.batch * self.heads
        short = [x.new_empty(most, *x.shape[2:], dtype=self.dtype) for x in shortened]
        memory = q.new_empty(self.blocks, self.rows * k.shape[2], dtype=self.dtype)
        return _Space(memory, self.rows, short)

    def _group(self, texts: slice, heads: slice, space: _Space) -> _Group:
        q, *_, bias, mask, rule = self.inputs
        B, H = q.shape[:2]
        return _Group(
            {n: x[texts, heads].flatten(0, 1).to(self.dtype) for n, x in self.tensors.items()},
            None if bias is None else bias[heads].to(self.dtype),
            None if mask is None else mask.expand(B, H, -1, -1)[texts, heads].flatten(0, 1),
            rule,
            space,
        )


def _part(x: Tensor, rows: slice) -> Tensor:
    """``x[:, rows]``, or x itself if that is all of it: making a view costs microseconds."""
    return x if rows.stop - rows.start == x.shape[1] else x[:, rows]


def _pass_between(low: float, high: float, grad: Tensor, x: Tensor) -> None:
    """Set a gradient to zero, in place, where x is not between low and high."""
    torch.ops.aten.hardtanh_backward.grad_input(grad, x, low, high, grad_input=grad)
