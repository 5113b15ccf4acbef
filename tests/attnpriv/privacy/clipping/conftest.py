"""What clipping engines are compared with: a loop over the records, one gradient after another."""

from __future__ import annotations

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


def assert_equals_loop(
    module: nn.Module,
    losses: Losses,
    records: int,
    *,
    cuts: Sequence[int] = (),
    views: int = 1,
    tolerance: float = 1e-6,
) -> None:
    """The books give the loop's sum, with half of the records longer than the clip."""
    median = float(by_loop(module, losses, records, flat(1.0)).norms.median())
    expected = by_loop(module, losses, records, flat(median))
    measured = by_books(module, losses, cuts or (0, records), flat(median), views)
    torch.testing.assert_close(measured.norms, expected.norms, rtol=1e-5, atol=0)
    assert error(measured, expected, median) <= tolerance


class Reference:
    """The functions above, where tests cannot import them."""

    flat = staticmethod(flat)
    by_loop = staticmethod(by_loop)
    by_books = staticmethod(by_books)
    error = staticmethod(error)
    assert_equals_loop = staticmethod(assert_equals_loop)


@pytest.fixture(scope="session")
def reference() -> type[Reference]:
    return Reference
