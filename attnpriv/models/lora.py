"""Low-rank adapters: a frozen linear layer learns through two thin ones (LoRA, Hu et al. 2022).

Shapes: p inputs and d outputs of a linear layer, R the rank: R·(p + d) weights in place of p·d.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from attnpriv.errors import InputError

if TYPE_CHECKING:
    from attnpriv.models.blocks import BlocksClassifier

Module = TypeVar("Module", bound=nn.Module)


class LowRankLinear(nn.Module):
    """A frozen linear layer plus an update of rank R: ``base(x) + up(down(x))``.

    ``down`` and ``up`` are ordinary linear layers, so that engines for per-record gradients need no
    rule of their own for them.

    ``up`` starts at zero, so that at first nothing changes. ``down`` keeps the Kaiming-uniform
    weights with which torch makes every linear layer, as in the paper's code. The paper's scale
    α/R is 1, as with α = R: under Adam another α is another learning rate (section 4.1).

    Args:
        base: the layer to adapt, [p] to [d]; frozen from here on.
        rank: R.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        place = {"device": base.weight.device, "dtype": base.weight.dtype}
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(base.in_features, rank, bias=False, **place)
        self.up = nn.Linear(rank, base.out_features, bias=False, **place)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., p] to [..., d]."""
        out: Tensor = self.base(x) + self.up(self.down(x))
        return out

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """The base with the update added to its weight; this layer is of no use afterwards."""
        self.base.weight.add_(self.up.weight @ self.down.weight)
        return self.base


def add_adapters(model: BlocksClassifier, rank: int, last: int | None = None) -> None:
    """Adapt every linear layer of the model's blocks in place; adapters it has are merged first.

    Args:
        model: its blocks' projections and feed-forward layers become ``LowRankLinear``.
        rank: R.
        last: adapt the last blocks only, that many; None adapts all.

    Raises:
        InputError: the rank is below 1 or above a side of such a layer, or ``last`` does not fit.
    """
    blocks = model.last_blocks(last)
    merge_adapters(model)
    linears = [m for m in blocks.modules() if isinstance(m, nn.Linear)]
    largest = min(side for m in linears for side in (m.in_features, m.out_features))
    if not 1 <= rank <= largest:
        raise InputError(
            f"expected rank in [1, {largest}], the smallest side of a layer, got {rank}"
        )
    _replace(blocks, nn.Linear, lambda linear: LowRankLinear(linear, rank))


def merge_adapters(model: nn.Module) -> None:
    """Put ordinary linear layers back in place, their weights with the update added.

    Outputs stay equal to rounding, and so do the names and shapes of the state before adapters.
    Under differential privacy this is post-processing: it costs no ε.
    """
    _replace(model, LowRankLinear, LowRankLinear.merge)


def _replace(root: nn.Module, kind: type[Module], make: Callable[[Module], nn.Module]) -> None:
    for parent in list(root.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
