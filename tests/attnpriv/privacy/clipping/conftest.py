"""What clipping engines are compared with: a loop over the records, one gradient after another.

Both sum in float32, each in its own order, so they differ by rounding, and where gradients cancel,
as those of a normalisation over two features do, rounding is magnified. How much depends on the
case and not on the engine: it is what the loop itself is off by, beside the same loop in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from attnpriv.privacy.clipping import clip_factors
from attnpriv.privacy.clipping.book_keeping import BookKeeping

Losses = Callable[[nn.Module, slice], Tensor]  # of the chosen records
Factors = Callable[[Tensor], Tensor]

SUMS = 8 * torch.finfo(torch.float32).eps  # relative; what sums in another order may differ by


@dataclass(frozen=True)
class Clipped:
    """Sums of clipped gradients, all parameters one after another, and the norms before."""

    total: Tensor
    norms: Tensor


def flat(clip: float) -> Factors:
    return lambda norms: clip_factors(norms, clip, "flat")


def by_loop(module: nn.Module, losses: Losses, records: int, factors: Factors) -> Clipped:
    trained = [p for p in module.parameters() if p.requires_grad]
    gradients = []
    for record in range(records):
        loss = losses(module, slice(record, record + 1)).sum()
        parts = torch.autograd.grad(loss, trained)
        gradients.append(torch.cat([part.double().flatten() for part in parts]))
    every = torch.stack(gradients)
    norms = every.norm(dim=1)
    return Clipped(factors(norms) @ every, norms)


def by_books(
    module: nn.Module,
    losses: Losses,
    cuts: Sequence[int],
    factors: Factors,
    views: int = 1,
) -> Clipped:
    norms: list[Tensor] = []

    def recorded(measured: Tensor) -> Tensor:
        norms.append(measured.clone())
        return factors(measured)

    engine = BookKeeping(module, recorded)
    totals = {p: torch.zeros(p.shape) for p in module.parameters() if p.requires_grad}
    for start, stop in pairwise(cuts):
        engine.accumulate(losses(module, slice(start, stop)), totals, views)
    engine.close()
    total = torch.cat([total.flatten() for total in totals.values()])
    return Clipped(total.double(), torch.cat(norms).double())


def error(measured: Clipped, expected: Clipped, clip: float) -> float:
    """The L2 distance of the sums, relative to the expected one, or to C where records cancel."""
    distance = (measured.total - expected.total).norm()
    return float(distance / expected.total.norm().clamp(min=clip))


def wide(module: nn.Module) -> nn.Module:
    """The same in float64, for float32 inputs."""

    def widen(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(x.double() if x.is_floating_point() else x for x in given)

    twin = copy.deepcopy(module).double()
    twin.register_forward_pre_hook(widen)
    return twin


def rounding_of_loop(
    module: nn.Module, losses: Losses, records: int, factors: Factors, clip: float
) -> float:
    """The largest error of the loop in float32, over parameters that differ in their last bits.

    One case can be right by luck.
    """
    worst, generator = 0.0, torch.Generator().manual_seed(0)
    for _ in range(8):
        near = copy.deepcopy(module)
        for parameter in near.parameters():
            steps = torch.randint(-2, 3, parameter.shape, generator=generator)
            parameter.data *= 1 + steps * torch.finfo(torch.float32).eps
        exact = by_loop(wide(near), losses, records, factors)
        worst = max(worst, error(by_loop(near, losses, records, factors), exact, clip))
    return worst


def assert_equals_sum(
    measured: Clipped,
    module: nn.Module,
    losses: Losses,
    records: int,
    factors: Factors,
    clip: float,
) -> None:
    """The sum is the loop's, up to the rounding of sums and to what the case makes of it."""
    if error(measured, by_loop(module, losses, records, factors), clip) > SUMS:
        exact = by_loop(wide(module), losses, records, factors)
        magnified = rounding_of_loop(module, losses, records, factors, clip)
        assert error(measured, exact, clip) <= SUMS + 4 * magnified


def assert_equals_loop(
    module: nn.Module,
    losses: Losses,
    records: int,
    *,
    cuts: Sequence[int] = (),
    views: int = 1,
) -> None:
    """The books give the loop's sum, with half of the records longer than the clip."""
    median = float(by_loop(module, losses, records, flat(1.0)).norms.median())
    expected = by_loop(module, losses, records, flat(median))
    measured = by_books(module, losses, cuts or (0, records), flat(median), views)
    torch.testing.assert_close(measured.norms, expected.norms, rtol=1e-5, atol=0)
    assert_equals_sum(measured, module, losses, records, flat(median), median)


class Reference:
    """The functions above, where tests cannot import them."""

    flat = staticmethod(flat)
    by_loop = staticmethod(by_loop)
    by_books = staticmethod(by_books)
    error = staticmethod(error)
    rounding_of_loop = staticmethod(rounding_of_loop)
    assert_equals_sum = staticmethod(assert_equals_sum)
    assert_equals_loop = staticmethod(assert_equals_loop)


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
