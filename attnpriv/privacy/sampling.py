"""Poisson sampling: each record joins each batch by its own coin, as the accountant assumes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import torch
from torch import Tensor

from attnpriv.errors import InputError


def make_generator(seed: int | None) -> torch.Generator:
    """A random generator, seeded by the operating system unless a seed is given.

    Not covered: the generator is a Mersenne twister, not a cryptographically secure one; ε holds
    against an attacker who cannot predict or reconstruct its output.
    """
    generator = torch.Generator()
    generator.manual_seed(secrets.randbits(63) if seed is None else seed)
    return generator


def poisson_batches(
    size: int, sample_rate: float, steps: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Draw ``steps`` batches of row numbers; each row is in each batch with chance ``sample_rate``.

    Batches vary in size and may be empty; an empty batch is still a step that must add noise.

    Raises:
        InputError: the sample rate is outside (0, 1].
    """
    if not 0 < sample_rate <= 1:
        raise InputError(f"expected sample_rate in (0, 1], got {sample_rate}")
    for _ in range(steps):
        # float64 keeps the coin's bias below 2^-53; float32 would round small rates visibly.
        coins = torch.rand(size, generator=generator, dtype=torch.float64)
        yield (coins < sample_rate).nonzero().flatten()
