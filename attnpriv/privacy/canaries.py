"""Canaries that are gradients: each is C along one trainable number of its own.

Such a canary is a record whose gradient is known beforehand, which no record with a loss has. It
passes through the clipping, the sampling and the noise of the run as any other record does, takes
no time, and moves one number of many, by less than the noise does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnpriv.config import Clipping
from attnpriv.privacy.clipping import clip_factors

LENGTH = 1000.0  # of a canary's gradient before it is clipped, in units of C


class AxisCanaries:
    """Adds the canaries of a batch to the clipped sums, and scores all by what noise leaves.

    The score of a canary is the log-likelihood ratio of having been in training to not having been,
    summed over the steps: with x the noised sum along its axis less the other records' clipped sum,
    in units of C, it is ``ln(1 - q + q·exp((x - ½)/σ²))``. By Neyman and Pearson no other score
    orders canaries better.

    Claim: scores are computed from what an attacker sees who knows the noised sum of each step, all
    other records, and which batches held them; against such an attacker ε is claimed to hold.
    Condition: the attacker does not know the coins. Not covered: this is the strongest attacker,
    not a likely one.

    Args:
        axes: places among all trainable numbers, one after another, [M], all different.
        signs: +1 or -1, in which direction, [M].
        sample_rate: q.
        noise_multiplier: σ > 0, as it is stated.
        max_grad_norm: C.
        clipping: see ``clipping.clip_factors``.

    Attributes:
        drawn: the canaries in the batch of the next step; whoever draws batches sets it.
        scores: so far, [M], float64.
    """

    def __init__(
        self,
        axes: Tensor,
        signs: Tensor,
        *,
        sample_rate: float,
        noise_multiplier: float,
        max_grad_norm: float,
        clipping: Clipping,
    ) -> None:
        self.drawn = torch.empty(0, dtype=torch.long)
        self.scores = torch.zeros(len(axes), dtype=torch.float64)
        self._axes, self._signs = axes, signs
        self._variance = noise_multiplier**2
        self._log_in = math.log(sample_rate)
        self._log_out = math.log1p(-sample_rate) if sample_rate < 1 else -math.inf
        self._most = max_grad_norm
        length = torch.tensor(LENGTH * max_grad_norm)
        self._clipped = length * clip_factors(length, max_grad_norm, clipping)
        self._others = torch.empty(0)

    def add(self, sums: Sequence[Tensor]) -> None:
        """Add those that are drawn to the clipped sums, in place.

        Args:
            sums: of all trainable parameters, contiguous.
        """
        self._others = self._read(sums)
        added = torch.zeros(len(self._axes))
        added[self.drawn] = self._signs[self.drawn] * self._clipped
        for flat, which, places in self._parts(sums):
            flat[places] += added[which]

    def observe(self, noised: Sequence[Tensor], divisor: float) -> None:
        """Take in what the optimizer was given.

        Args:
            noised: the noised sums over ``divisor``.
            divisor: the expected batch size.
        """
        alone = self._read(noised).double() * divisor - self._others.double()
        ratio = (alone * self._signs / self._most - 0.5) / self._variance
        self.scores += torch.logaddexp(
            torch.tensor(self._log_out, dtype=torch.float64), self._log_in + ratio
        )

    def _read(self, tensors: Sequence[Tensor]) -> Tensor:
        found = torch.empty(len(self._axes))
        for flat, which, places in self._parts(tensors):
            found[which] = flat[places]
        return found

    def _parts(self, tensors: Sequence[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Each tensor that has canaries: flat, which canaries these are, and their places."""
        parts, start = [], 0
        for tensor in tensors:
            places = self._axes - start
            which = ((places >= 0) & (places < tensor.numel())).nonzero().flatten()
            if len(which):
                parts.append((tensor.view(-1), which, places[which]))
            start += tensor.numel()
        return parts
