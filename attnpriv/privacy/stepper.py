"""Clipped and noised optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from torch import Tensor, nn

from attnpriv.config import Clipping, ClippingEngine
from attnpriv.errors import InputError
from attnpriv.privacy import shards
from attnpriv.privacy.canaries import AxisCanaries
from attnpriv.privacy.clipping import make_engine
from attnpriv.randomness import Stream

Losses = Callable[[nn.Module], Tensor]


class PrivateStepper:
    """Turns per-record losses into optimizer steps that clip each record and add noise.

    Claim: one ``step`` releases the sum of the records' gradients, each clipped in L2 to
    ``max_grad_norm`` over all trainable parameters together, plus Gaussian noise of standard
    deviation ``noise_multiplier · max_grad_norm``, divided by the *expected* batch size. An empty
    batch adds noise too. Condition: batches come from ``sampling.poisson_batch``, every step has a
    noise stream of its own, and the module computes each record's loss from that record alone. Not
    covered: floating-point attacks on the noise.

    Args:
        module: its parameters that require gradients are trained.
        optimizer: makes the update from the noised gradient.
        noise_multiplier: σ.
        max_grad_norm: C.
        expected_batch_size: q·N.
        clipping: see ``clipping.clip_factors``.
        clipping_engine: see ``clipping.make_engine``.
        canaries: gradients that are added to those of the records, if there are any.
        copies: rows of a batch that make one record, next to each other, whose loss is their mean.
            The record's gradient, which is clipped, is then the mean of theirs.

    Attributes:
        module: what losses must be computed with.

    Raises:
        InputError: as ``make_engine``, the optimizer does not hold a trainable parameter, or there
            are copies and the engine is not ``book_keeping``, the only one that averages them.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        clipping: Clipping = "flat",
        clipping_engine: ClippingEngine = "book_keeping",
        canaries: AxisCanaries | None = None,
        copies: int = 1,
    ) -> None:
        if copies > 1 and clipping_engine != "book_keeping":
            raise InputError(
                "expected clipping engine book_keeping with augmentation, as the others clip each "
                f"copy of a record by itself, got {clipping_engine}"
            )
        self._copies = {"views": copies} if copies > 1 else {}
        self._engine = make_engine(clipping_engine, module, max_grad_norm, clipping)
        self.module = self._engine.module
        self._canaries, self._divisor = canaries, expected_batch_size
        self._optimizer = _NoisedOptimizer(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
        )
        self._totals = _totals(self.module, self._optimizer.params)

    @property
    def skipped_records(self) -> int:
        """How many times a record was left out because its gradient was not finite."""
        return self._engine.skipped_records

    def step(
        self,
        micro_batches: Iterable[Losses],
        noise: Stream,
        reduce: Callable[[list[Tensor]], None] | None = None,
    ) -> None:
        """Make one noised step from any number of micro-batches, none included.

        Args:
            micro_batches: for each, a function from the module to its records' losses, one each.
            noise: this step's own; where several processes train together, the same for all.
            reduce: sums the clipped gradients of these processes in place, before the noise. None
                where parameters are sharded: there the engine has summed them.

        Raises:
            InputError: the losses are not one for each record, or the engine cannot clip them.
        """
        for parameter, total in self._totals.items():
            parameter.grad = None  # the last step's, in the memory of the total
            total.zero_()
        for losses_of in micro_batches:
            losses = losses_of(self.module)
            if losses.dim() != 1:
                raise InputError(
                    f"expected one loss for each record, got losses of shape {tuple(losses.shape)}"
                )
            self._engine.accumulate(losses, self._totals, **self._copies)
        if reduce is not None:
            reduce(list(self._totals.values()))
        if self._canaries is not None:
            self._canaries.add(list(self._totals.values()))
        for parameter, total in self._totals.items():
            parameter.summed_grad = total  # type: ignore[attr-defined]
        self._optimizer.noise = noise
        self._optimizer.step()
        if self._canaries is not None:
            self._canaries.observe([cast(Tensor, p.grad) for p in self._totals], self._divisor)

    def close(self) -> None:
        """Make the module an ordinary one again."""
        for parameter in self._totals:
            parameter.grad = None
            del parameter.summed_grad  # type: ignore[attr-defined]
        self._totals.clear()
        self._engine.close()


class _NoisedOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """The noise and the scaling of Opacus, on sums that an engine has clipped already.

    The noise comes from a stream, and goes into the sums in place.
    """

    noise: Stream

    def accumulate(self) -> None:
        """Nothing is left to accumulate."""

    def add_noise(self) -> None:
        """Noise the sums, and make them the gradients."""
        for parameter in self.params:
            deviation = self.noise_multiplier * self.max_grad_norm
            place = {"start": shards.start_of(parameter), "whole": parameter.numel()}
            noised = self.noise.add_normal_(parameter.summed_grad, deviation, **place)
            parameter.grad = shards.like(parameter, noised)


def _totals(module: nn.Module, held: list[nn.Parameter]) -> dict[nn.Parameter, Tensor]:
    """A zero for each parameter; refuses one that the optimizer would leave without noise."""
    identities = {id(parameter) for parameter in held}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and id(parameter) not in identities:
            raise InputError(f"parameter {name} is trainable but would not be clipped and noised")
    # Contiguous, for the noise, even where a convolution's weights are channels-last.
    layout = torch.contiguous_format
    return {p: torch.zeros_like(shards.held(p), memory_format=layout) for p in held}
