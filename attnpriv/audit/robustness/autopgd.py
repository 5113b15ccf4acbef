"""AutoPGD: projected gradient ascent that chooses its step sizes by itself.

It begins with steps of twice the radius and goes on with momentum. At checkpoints, a row whose
value rose in too few steps, or whose best value has not changed although its step has not either,
goes back to its best point with half the step.

Source: Croce and Hein 2020 (arXiv:2003.01690), algorithm 1, with its momentum of 0.75 and its
checkpoints. Beyond it: a radius for each row, a goal that may be reached at points whose value is
not the highest, and gradients of another function than the one that is raised.

Shapes: B batch, T positions, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.audit.robustness.balls import Ball

MOMENTUM = 0.75  # α: the share of the new direction in a step
RISES = 0.75  # ρ: the share of steps in which the value must rise between two checkpoints


@dataclass(frozen=True)
class Reached:
    """What a goal makes of B inputs.

    Attributes:
        values: what the attack raises, [B].
        met: whether the goal is reached, [B].
    """

    values: Tensor
    met: Tensor


Goal = Callable[[Tensor], Reached]
"""Of embeddings [B, T, D]; no row may depend on another."""


@dataclass(frozen=True)
class Found:
    """The best point of each row: of those that meet the goal, if any, the highest value.

    Attributes:
        x: the points, [B, T, D].
        values: their values, [B].
        met: whether they meet the goal, [B].
    """

    x: Tensor
    values: Tensor
    met: Tensor

    def or_better(self, other: Found) -> Found:
        """Row by row, the other one where it is better."""
        better = (other.met & ~self.met) | ((other.met == self.met) & (other.values > self.values))
        return Found(
            torch.where(better[:, None, None], other.x, self.x),
            torch.where(better, other.values, self.values),
            self.met | other.met,
        )


def checkpoints(steps: int) -> tuple[int, ...]:
    """After which of so many steps progress is judged.

    >>> checkpoints(100)
    (22, 41, 57, 70, 80, 87, 93, 99)
    """
    places, last, gap = [], 0.0, 0.22
    while last + gap <= 1:
        last, gap = last + gap, max(gap - 0.03, 0.06)
        places.append(math.ceil(round(last * steps, 9)))
    return tuple(places)


def autopgd(
    goal: Goal,
    ball: Ball,
    start: Tensor,
    steps: int,
    guide: Goal | None = None,
    enough: Callable[[Tensor], bool] = lambda met: bool(met.all()),
) -> Found:
    """Search the ball for points that meet a goal.

    Args:
        goal: what is raised, and when it is reached.
        ball: where the points may lie.
        start: where each row begins, [B, T, D]; what lies outside of the ball is moved into it.
            The start counts as found, so that the result is never worse than it.
        steps: at most how many steps are taken.
        guide: a goal whose gradients are followed in the place of the goal's own.
        enough: whether to end, from which rows meet the goal, [B]: as soon as all do.
    """
    ascent = _Ascent(goal, ball, ball.nearest(start), guide)
    at = checkpoints(steps)
    for taken in range(steps):
        if enough(ascent.found.met):
            break
        ascent.step(judge=taken in at)
    return ascent.found


class _Ascent:
    """Where the rows are, where they were best, and how far they step.

    Gradients are computed at the beginning of the step that follows them: none of the last point.
    """

    def __init__(self, goal: Goal, ball: Ball, start: Tensor, guide: Goal | None) -> None:
        self.goal, self.ball, self.guide = goal, ball, guide
        self.x = self.before = start
        reached = self._look()
        self.values = reached.values
        self.found = Found(start, reached.values, reached.met)
        # By value alone, whether the goal is met or not.
        self.top_x, self.top_values = start, reached.values
        self.top_is_here = torch.ones_like(reached.met)
        self.gradient = self.top_gradient = torch.zeros_like(start)
        self.size = 2 * ball.radii
        self.taken = 0
        self.rises = torch.zeros_like(ball.radii)
        self.top_at_last = reached.values
        self.halved = torch.zeros_like(reached.met)

    def step(self, judge: bool) -> None:
        """One step of every row, after a judgement of those before if one is due."""
        self._differentiate()
        if judge:
            self._judge()
        along = self.ball.steepest(self.gradient) * self.size[:, None, None]
        towards = self.ball.nearest(self.x + along) - self.x
        if self.before is not self.x:  # the first step has no direction to go on in
            towards = MOMENTUM * towards + (1 - MOMENTUM) * (self.x - self.before)
        self.before, self.x = self.x, self.ball.nearest(self.x + towards)
        reached = self._look()
        self.rises += reached.values > self.values
        self.values = reached.values
        self.taken += 1
        self._keep(reached)

    def _judge(self) -> None:
        """Halve the steps of rows that do not get on, and take them back to their best point."""
        few = self.rises < RISES * self.taken
        same = ~self.halved & (self.top_values <= self.top_at_last)
        self.halved = few | same
        rows = self.halved[:, None, None]
        self.size = torch.where(self.halved, self.size / 2, self.size)
        self.x = torch.where(rows, self.top_x, self.x)
        self.values = torch.where(self.halved, self.top_values, self.values)
        self.gradient = torch.where(rows, self.top_gradient, self.gradient)
        self.top_at_last, self.rises, self.taken = self.top_values, self.rises * 0, 0

    def _look(self) -> Reached:
        """What the goal makes of the points; without a guide, their gradients follow from it."""
        with torch.set_grad_enabled(self.guide is None):
            self.leaf = self.x.detach().requires_grad_(self.guide is None)
            reached = self.goal(self.leaf)
        self.followed = reached.values
        return Reached(reached.values.detach(), reached.met)

    def _differentiate(self) -> None:
        """The gradients at the points, and at the best ones, where those are the same."""
        if self.guide is not None:
            with torch.enable_grad():
                self.leaf = self.x.detach().requires_grad_()
                self.followed = self.guide(self.leaf).values
        (self.gradient,) = torch.autograd.grad(self.followed.sum(), self.leaf)
        rows = self.top_is_here[:, None, None]
        self.top_gradient = torch.where(rows, self.gradient, self.top_gradient)

    def _keep(self, reached: Reached) -> None:
        self.found = self.found.or_better(Found(self.x, reached.values, reached.met))
        self.top_is_here = reached.values > self.top_values
        self.top_x = torch.where(self.top_is_here[:, None, None], self.x, self.top_x)
        self.top_values = torch.where(self.top_is_here, reached.values, self.top_values)
