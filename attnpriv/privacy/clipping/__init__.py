"""Clipping engines: sums of per-record gradients, each clipped to norm C.

================  ==================================================================  ============
engine            how                                                                 by
================  ==================================================================  ============
``book_keeping``  one backward pass; norms and sums from inputs and output gradients  ourselves
``hooks``         one backward pass that writes out every per-record gradient         Opacus
``ghost``         one backward pass for the norms, a second one for the sum           Opacus
================  ==================================================================  ============

All of them compute the same sum, up to float32 rounding. They differ in time, in memory, and in the
layers that they support.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from opacus.validators import ModuleValidator
from torch import Tensor, nn

from attnpriv.config import Clipping, ClippingEngine
from attnpriv.errors import InputError
from attnpriv.privacy.clipping.book_keeping import BookKeeping
from attnpriv.privacy.clipping.opacus_engines import Ghost, Hooks

__all__ = ["Engine", "clip_factors", "make_engine"]

STABILITY = 0.01  # γ of automatic clipping, the value of its paper


class Engine(Protocol):
    """Sums clipped gradients.

    Attributes:
        module: what the losses must be computed with.
        skipped_records: how many records were left out because their gradient was not finite.
    """

    module: nn.Module
    skipped_records: int

    def accumulate(self, losses: Tensor, totals: dict[nn.Parameter, Tensor]) -> None:
        """Add the clipped gradients of a micro-batch's losses, one a record, to the totals."""

    def close(self) -> None:
        """Leave an ordinary module behind."""


_ENGINES: dict[ClippingEngine, Callable[..., Engine]] = {
    "book_keeping": BookKeeping,
    "hooks": Hooks,
    "ghost": Ghost,
}


def make_engine(
    engine: ClippingEngine, module: nn.Module, max_grad_norm: float, clipping: Clipping
) -> Engine:
    """The engine of that name, attached to a module.

    Raises:
        InputError: the module holds a layer whose records cannot be told apart, such as batch norm,
            or a trainable parameter that the engine cannot clip.
    """
    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        raise InputError(f"the model cannot be trained privately: {problems[0]}")
    factors = partial(clip_factors, max_grad_norm=max_grad_norm, clipping=clipping)
    return _ENGINES[engine](module, factors)


def clip_factors(norms: Tensor, max_grad_norm: float, clipping: Clipping) -> Tensor:
    """What to multiply gradients of these norms by, so that none exceeds C.

    Args:
        norms: L2 norms, [R].
        max_grad_norm: C.
        clipping: ``flat``, ``min(1, C/‖g‖)`` (Abadi et al. 2016), or ``automatic``,
            ``C/(‖g‖ + 0.01)``, which also lengthens short gradients (Bu et al. 2023,
            arXiv:2206.07136, AUTO-S) and leaves C to the learning rate.

    =========  ====  =========
    norm       flat  automatic
    =========  ====  =========
    0          1     100 C
    infinite   0     0
    NaN        NaN   NaN
    =========  ====  =========
    """
    if clipping == "automatic":
        return max_grad_norm / (norms + STABILITY)
    return (max_grad_norm / norms).clamp(max=1.0)
