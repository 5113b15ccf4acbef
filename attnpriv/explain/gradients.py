"""Gradients of answers: integrated gradients of positions, conductance of attention, GradCAM.

The first two run along a path from the baseline to the example. Integrated gradients say which
positions moved the answer; conductance says how much of that movement went through each attention
weight. GradCAM weighs the feature maps of one layer by the gradient at the example alone.

Shapes: B batch, L layers, H heads, T positions, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import pad

from attnpriv.modality import AttentionModel, Embedded

# Errors of the integration, as shares of what the scores should add up to: a path is refined until
# its error is within the goal, and its scores count as converged within the tolerance.
GOAL, TOLERANCE = 0.01, 0.05
# Where scores cancel out, the share is taken of this much of their absolute sum instead.
LEAST_DIFFERENCE = 0.1
ROUNDING = 1e-5  # error in logits that float32 makes of nothing
POINTS = 4  # of Gauss and Legendre on each piece of a path
# A path is not refined beyond so many points. Long texts get fewer: each point costs more there,
# and hardly any has need of it.
MOST_POINTS, MOST_TOKENS, POINTS_FOR_ALL = 512, 16384, 128
MOST_HALVINGS = 16  # of a piece: at a jump of the logit no more help
ROWS_AT_ONCE = 64  # points of paths in one forward and backward pass; bounds memory only


@dataclass(frozen=True)
class Attribution:
    """The scores of the positions of B examples, and how far they can be trusted.

    Attributes:
        scores: [B, T].
        error: for each example the convergence deltas of all pieces of its path, added up without
            their signs, [B]; by no more does the sum of its scores miss the difference of logits.
        tolerance: the error up to which scores count as converged, [B].
        points: on the path of each example, [B].
    """

    scores: Float[Tensor, "B T"]
    error: Float[Tensor, " B"]
    tolerance: Float[Tensor, " B"]
    points: Int[Tensor, " B"]

    @property
    def converged(self) -> Bool[Tensor, " B"]:
        """For each example, whether its error is within the tolerance, [B]."""
        return self.error <= self.tolerance


def integrated_gradients(
    model: AttentionModel,
    example: Embedded,
    target: Int[Tensor, " B"],
    steps: int = 32,
    *,
    most: int | None = None,
    check: Callable[[], None] | None = None,
) -> Attribution:
    """How much each position moved the target's logit away from that of the baseline.

    The path runs straight from the baseline, in which everything with a place in the record is
    padding at the same position, to the example. It is cut into pieces, on each of which
    Captum integrates by Gauss and Legendre. Pieces that miss the difference of the logits at their
    ends are halved, until the errors of all pieces together are within 1 % of the difference of
    the logits at the ends of the path, or 512 points are spent (128 of the longest texts). Short
    texts need that: where one word turns into another, the logit all but jumps. The scores of an
    example depend on that example alone.

    Args:
        model: in eval mode.
        example: B embedded examples.
        target: class numbers [B].
        steps: points on the path before it is refined; rounded up to whole pieces.
        most: points from which on a path is not refined, where fewer than the usual are enough.
        check: called before each refinement; what it raises ends the work.

    Returns:
        Scores summed over D; zero at padding and at what the model added, which both ends of the
        path share. Their sum is the difference of the two logits up to the error. Examples whose
        error stays above 5 % are told by ``Attribution.converged``.

    Source: Sundararajan, Taly and Yan 2017 (arXiv:1703.01365), equation 1. Not covered: another
    baseline gives other scores; they explain this model's answer, not the world. A small error says
    that the scores add up, not that each of them is as exact.
    """
    rows = [
        integrate(model, own, target[row : row + 1], steps, most, check)
        for row, own in enumerate(example.rows())
    ]
    width = example.mask.shape[1]
    return Attribution(
        torch.cat([pad(row.scores, (0, width - row.scores.shape[1])) for row in rows]),
        torch.cat([row.error for row in rows]),
        torch.cat([row.tolerance for row in rows]),
        torch.cat([row.points for row in rows]),
    )


def integrate(
    model: AttentionModel,
    example: Embedded,
    target: Int[Tensor, " B"],
    steps: int,
    most: int | None = None,
    check: Callable[[], None] | None = None,
) -> Attribution:
    """``integrated_gradients`` of a single example without padding."""
    edges = torch.linspace(0, 1, math.ceil(steps / POINTS) + 1)
    measure = _Path(model, example, target).integrate
    pieces = measure(edges[:-1], edges[1:])
    points, most = POINTS * len(pieces.missed), most or _most_points(example.mask.shape[1])
    for _ in range(MOST_HALVINGS):
        missed, goal = pieces.missed.abs(), pieces.allowed(GOAL)
        # An error that is not finite is no larger than anything: nothing is left to refine.
        if not float(missed.sum()) > goal or points >= most:
            break
        if check:
            check()
        poor = missed > goal / (2 * len(missed))
        halves = measure(*pieces.halve(poor))
        points += POINTS * len(halves.missed)
        pieces = pieces.join(~poor, halves)
    return Attribution(
        pieces.total()[None].to(example.x.dtype),
        pieces.missed.abs().sum()[None],
        torch.tensor([pieces.allowed(TOLERANCE)], dtype=torch.float64),
        torch.tensor([points]),
    )


def _most_points(tokens: int) -> int:
    return max(POINTS_FOR_ALL, min(MOST_POINTS, MOST_TOKENS // tokens))


@dataclass(frozen=True)
class _Pieces:
    """Stretches of a path from ``start`` to ``end`` [P], their scores [P, T], and errors [P]."""

    start: Tensor
    end: Tensor
    scores: Tensor
    missed: Tensor

    def total(self) -> Tensor:
        """The scores of the whole path, [T], in float64."""
        return self.scores.sum(0)

    def allowed(self, share: float) -> float:
        """The error of all pieces together that is such a share of what their scores add up to."""
        total = self.total()
        difference = abs(float(total.sum() - self.missed.sum()))
        size = max(difference, LEAST_DIFFERENCE * float(total.abs().sum()))
        return share * size + ROUNDING

    def halve(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """The starts and the ends of both halves of some pieces."""
        start, end = self.start[chosen], self.end[chosen]
        middle = (start + end) / 2
        return torch.cat([start, middle]), torch.cat([middle, end])

    def join(self, kept: Tensor, others: _Pieces) -> _Pieces:
        """The pieces that are kept, and others."""
        return _Pieces(
            torch.cat([self.start[kept], others.start]),
            torch.cat([self.end[kept], others.end]),
            torch.cat([self.scores[kept], others.scores]),
            torch.cat([self.missed[kept], others.missed]),
        )


@dataclass(frozen=True)
class _Path:
    """The straight line from an example's baseline to itself, and the class asked about."""

    model: AttentionModel
    example: Embedded
    target: Tensor

    def integrate(self, start: Tensor, end: Tensor) -> _Pieces:
        """Integrated gradients along each of the pieces from start to end, both [P]."""
        size = ROWS_AT_ONCE // POINTS
        batches = [slice(at, at + size) for at in range(0, len(start), size)]
        found = [self._captum(self._at(start[each]), self._at(end[each])) for each in batches]
        scores, missed = (torch.cat(parts) for parts in zip(*found, strict=True))
        return _Pieces(start, end, scores, missed)

    def _at(self, share: Tensor) -> Tensor:
        start = self.example.baseline
        return start + share[:, None, None] * (self.example.x - start)

    def _outputs(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.model.run(x, mask).outputs

    def _captum(self, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        from captum.attr import IntegratedGradients  # a server can answer while it is imported

        attributions, missed = IntegratedGradients(self._outputs).attribute(
            last,
            baselines=first,
            target=self.target.expand(len(first)),
            additional_forward_args=(self.example.mask.expand(len(first), -1),),
            n_steps=POINTS,
            return_convergence_delta=True,
        )
        return attributions.sum(-1).detach().double(), missed.detach().double()


def attention_conductance(
    model: AttentionModel, example: Embedded, target: int, steps: int
) -> Float[Tensor, "L H T T"]:
    """How much of an answer goes through each attention weight, by the trapezoidal rule.

    Along the path of ``integrated_gradients`` the conductance of a weight is
    ``∫ ∂logit/∂weight · d(weight)``: how far the answer hangs on it, times how far the text moved
    it. Memory grows with ``steps`` times the attention weights of the text.

    Captum's ``LayerConductance`` computes the same; it needs a forward and backward pass for each
    layer where here one serves all, and sees only one application of a block that several layers
    share. The tests compare the two.

    Args:
        model: in eval mode.
        example: one embedded example.
        target: class number.
        steps: intervals on the path.

    Returns:
        [L, H, T, T].

    Source: Dhamdhere, Sundararajan and Yan 2018 (arXiv:1805.12233), equation 3. Not covered: what a
    layer passes on by its residual, and what reaches the answer through the values; so the
    conductances of a layer do not sum to the answer.
    """
    shares = torch.linspace(0, 1, steps + 1)[:, None, None]
    path = (example.baseline + shares * (example.x - example.baseline)).requires_grad_()
    seen = model.run(path, example.mask.expand(len(path), -1), need_maps=True)
    weights = seen.self_attention()
    gradients = torch.autograd.grad(seen.outputs[:, target].sum(), weights)
    return torch.stack(
        [
            ((slope[1:] + slope[:-1]) / 2 * (layer[1:] - layer[:-1]).detach()).sum(0)
            for slope, layer in zip(gradients, weights, strict=True)
        ]
    )


def grad_cam(
    model: AttentionModel,
    layer: nn.Module,
    example: Embedded,
    target: Int[Tensor, " B"],
    by_place: bool = False,
) -> Float[Tensor, "B T"]:
    """Where the feature maps of a layer speak for the target's logit, by Captum.

    GradCAM weighs each channel by the mean gradient of the logit by it; HiResCAM, with
    ``by_place``, weighs each number of the maps by its own gradient. Both sum over the channels,
    and what is below 0, where the map speaks against the target, becomes 0.

    Args:
        model: in eval mode.
        layer: of the model; its output is [B, D, H, W] with a position for each of T = H·W.
        example: B embedded examples.
        target: class numbers [B].
        by_place: whether to weigh by each number's own gradient.

    Returns:
        [B, T], not negative.

    Source: Selvaraju et al. 2017 (arXiv:1610.02391), equations 1 and 2; Draelos and Carin 2020
    (arXiv:2011.08891). Not covered: a position of the layer has seen its neighbours, as far as the
    convolutions below it reach. Under GradCAM one weight a channel stands for all positions: where
    the head reads places apart, gradients of either sign cancel, and the map can be empty or lie
    elsewhere. Where it reads the mean of all places, both methods give the same map up to a factor.
    """
    # A server can answer while it is imported.
    from captum.attr import LayerGradCam, LayerGradientXActivation

    def outputs(x: Tensor, mask: Tensor) -> Tensor:
        return model.run(x, mask).outputs

    method = LayerGradientXActivation if by_place else LayerGradCam
    found = method(outputs, layer).attribute(
        example.x.clone().requires_grad_(),
        target=target,
        additional_forward_args=(example.mask,),
    )
    assert isinstance(found, Tensor)
    return found.sum(1).flatten(1).clamp(min=0).detach()
