"""How far embeddings may be moved: the ball around a batch, with what an ascent in it needs.

``linf`` bounds each coordinate. ``l2`` bounds the Euclidean norm of the move of each position by
itself, so that a long text is not moved less at each of its tokens than a short one. A ball of
``l2`` with √D times the radius contains that of ``linf``.

Shapes: B batch, T positions, D model width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attnpriv.errors import InputError

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Ball:
    """All moves of at most a radius.

    Attributes:
        x: the middle, [B, T, D].
        movable: 1 where a coordinate may move, 0 elsewhere, [B, T, D].
        radii: one for each row, [B].
        norm: of a move.

    Raises:
        InputError: a radius is below 0 or NaN.
    """

    x: Tensor
    movable: Tensor
    radii: Tensor
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        if not bool((self.radii >= 0).all()):
            raise InputError(f"expected radii of 0 or more, got {self.radii.tolist()}")

    def nearest(self, moved: Tensor) -> Tensor:
        """The point of the ball that is nearest to another, [B, T, D]."""
        move, radii = (moved - self.x) * self.movable, self.radii[:, None, None]
        if self.norm == "linf":
            return self.x + move.clamp(-radii, radii)
        shorter: Tensor = (radii / move.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
        return self.x + move * shorter

    def steepest(self, gradient: Tensor) -> Tensor:
        """Of all moves of size 1, the one with the largest product with a gradient, [B, T, D].

        A position without a gradient stays.
        """
        gradient = gradient * self.movable
        if self.norm == "linf":
            return gradient.sign()
        # Gradients of confident answers are so small that their squares would be 0.
        scaled = gradient / gradient.abs().amax(-1, keepdim=True).clamp(min=1e-38)
        lengths: Tensor = scaled.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return scaled / lengths

    def random(self, generator: torch.Generator) -> Tensor:
        """A point of the ball, [B, T, D]: anywhere for ``linf``, on its surface for ``l2``."""
        if self.norm == "linf":
            move = torch.rand(self.x.shape, generator=generator) * 2 - 1
        else:
            move = torch.randn(self.x.shape, generator=generator)
            move = move / move.norm(dim=-1, keepdim=True)
        return self.nearest(self.x + move.to(self.x) * self.radii[:, None, None])
