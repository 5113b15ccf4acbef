"""Poisson sampling: each record joins each batch by its own coin, as the accountant assumes."""

from __future__ import annotations

from torch import Tensor

from attnpriv.errors import InputError
from attnpriv.randomness import Stream


def poisson_batch(size: int, sample_rate: float, stream: Stream) -> Tensor:
    """Draw the row numbers of one step's batch; each row joins with chance ``sample_rate``.

    Args:
        size: number of rows.
        sample_rate: q in (0, 1], the one that the accountant is given.
        stream: source of the coins, one for each row; a stream of its own for each step.

    Returns:
        Row numbers in rising order. There may be none: such a step must add noise all the same.

    Raises:
        InputError: the sample rate is out of range.

    Claim: the coins are independent, and each one's chance is ``sample_rate`` to within 2^-53.
    """
    if not 0 < sample_rate <= 1:
        raise InputError(f"expected sample_rate in (0, 1], got {sample_rate}")
    return (stream.uniform(size) < sample_rate).nonzero().flatten()
