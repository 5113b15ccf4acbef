"""How far embeddings or pixels may be moved: the ball around a batch, and what an ascent needs.

``linf`` bounds each coordinate. ``l2`` bounds the Euclidean norm of the move of each position by
itself, so that a long text is not moved less at each of its tokens than a short one. A ball of
``l2`` with √D times the radius contains that of ``linf``. Of pixels, it is the norm of the move of
a whole image, and every pixel stays between black and white.

Shapes: B batch, T positions, D model width, or numbers of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnpriv.errors import InputError

Norm = Literal["linf", "l2"]
HALVINGS = 20  # of the share of a move that is left of it, where pixels have a range


@dataclass(frozen=True)
class Ball:
    """All moves of at most a radius.

    Attributes:
        x: the middle, [B, T, D].
        movable: 1 where a coordinate may move, 0 elsewhere, [B, T, D].
        radii: one for each row, [B].
        norm: of a move.
        over: the dimensions that a norm of ``l2`` is taken over: D, or T and D.
        limits: the least and the largest value of a coordinate; x lies within. None without any.

    Raises:
        InputError: a radius is below 0 or NaN.
    """

    x: Tensor
    movable: Tensor
    radii: Tensor
    norm: Norm = "linf"
    over: tuple[int, ...] = (-1,)
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not bool((self.radii >= 0).all()):
            raise InputError(f"expected radii of 0 or more, got {self.radii.tolist()}")

    def nearest(self, moved: Tensor) -> Tensor:
        """The point of the ball that is nearest to another, [B, T, D]."""
        move, radii = (moved - self.x) * self.movable, self.radii[:, None, None]
        if self.norm == "linf":
            return self._within(self.x + move.clamp(-radii, radii))
        if self.limits is not None:
            return self._nearest_within(move, radii)
        shorter: Tensor = (radii / self._lengths(move).clamp(min=1e-30)).clamp(max=1)
        return self.x + move * shorter

    def _nearest_within(self, move: Tensor, radii: Tensor) -> Tensor:
        """The same in ``l2`` under limits: the largest share of a move that stays in the ball.

        What the limits cut off leaves length to the other coordinates. By the conditions of Karush,
        Kuhn and Tucker, the nearest point is that of a shortened move, cut off at the limits.
        """
        share, step = torch.ones_like(self._lengths(move)), 1.0
        kept = torch.zeros_like(share)
        for _ in range(HALVINGS):
            inside = self._lengths(self._within(self.x + share * move) - self.x) <= radii
            kept = torch.where(inside, share, kept)
            step /= 2
            share = (share + torch.where(inside, step, -step)).clamp(max=1)
        return self._within(self.x + kept * move)

    def _within(self, x: Tensor) -> Tensor:
        return x if self.limits is None else x.clamp(*self.limits)

    def _lengths(self, move: Tensor) -> Tensor:
        lengths: Tensor = move.norm(dim=self.over, keepdim=True)
        return lengths

    def steepest(self, gradient: Tensor) -> Tensor:
        """Of all moves of size 1, the one with the largest product with a gradient, [B, T, D].

        What has no gradient stays. Limits are not looked at.
        """
        gradient = gradient * self.movable
        if self.norm == "linf":
            return gradient.sign()
        # Gradients of confident answers are so small that their squares would be 0.
        scaled = gradient / gradient.abs().amax(self.over, keepdim=True).clamp(min=1e-38)
        steepest: Tensor = scaled / self._lengths(scaled).clamp(min=1e-6)
        return steepest

    def random(self, generator: torch.Generator) -> Tensor:
        """A point of the ball, [B, T, D]: anywhere for ``linf``, on its surface for ``l2``."""
        if self.norm == "linf":
            move = torch.rand(self.x.shape, generator=generator) * 2 - 1
        else:
            move = torch.randn(self.x.shape, generator=generator)
            move = move / self._lengths(move)
        return self.nearest(self.x + move.to(self.x) * self.radii[:, None, None])
