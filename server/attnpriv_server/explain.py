"""What one answer rests on: numbers for each position that a model read.

Shapes: L layers, H heads, T positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnpriv.explain.attention import attention_received, rollout
from attnpriv.explain.gradients import TOLERANCE, Attribution, integrated_gradients
from attnpriv.modality import Sample, embed
from attnpriv.runs.folder import Run
from attnpriv_server.domain import Deadline


@dataclass(frozen=True)
class Wanted:
    """Which numbers are to be computed."""

    attention: bool
    rollout: bool
    integrated_gradients: bool


@dataclass(frozen=True)
class Scored:
    """Numbers for each position, those that the model added included; None where not wanted.

    Those of attention are None, too, where the model attends to no positions.

    Attributes:
        attention: received by each position in each head, mean over the queries, [L, H, T].
        rollout: how much of each position reaches the last layer, [T].
        integrated_gradients: what each position adds to the class's logit, [T].
        gradients_error: by how much, at most, their sum misses the difference of logits that it
            stands for.
        gradients_withheld: why they are None although they were wanted.
    """

    attention: NDArray[np.float64] | None = None
    rollout: NDArray[np.float64] | None = None
    integrated_gradients: NDArray[np.float64] | None = None
    gradients_error: float | None = None
    gradients_withheld: str | None = None

    def gathered(self, positions: Sequence[int | None], size: int) -> Scored:
        """The same for other positions, each the sum of those that belong to it.

        Args:
            positions: for each of the T positions the one that it belongs to; None for those whose
                numbers are left out.
            size: how many positions there are then.
        """
        return Scored(
            _gathered(self.attention, positions, size),
            _gathered(self.rollout, positions, size),
            _gathered(self.integrated_gradients, positions, size),
            self.gradients_error,
            self.gradients_withheld,
        )


@torch.no_grad()
def score(run: Run, sample: Sample, target: int, wanted: Wanted, deadline: Deadline) -> Scored:
    """Compute the numbers for what a model reads of a record.

    Args:
        run: the model.
        sample: what it reads.
        target: the class that integrated gradients explain.
        wanted: which numbers.
        deadline: checked in between.

    Raises:
        ArithmeticError: a number is not finite.
        RefusedError: the deadline passed in between.
    """
    attention = rolled = gradients = error = withheld = None
    if (wanted.attention or wanted.rollout) and run.model.attention_shape[0]:
        attention, rolled = _attention(run, sample)
        deadline.check()
    if wanted.integrated_gradients:
        found = _integrated_gradients(run, sample, target, deadline)
        error = float(found.error)
        if found.converged:
            gradients = _finite(found.scores[0])
        else:
            withheld = _not_converged(found)
        deadline.check()
    return Scored(
        attention if wanted.attention else None,
        rolled if wanted.rollout else None,
        gradients,
        error,
        withheld,
    )


def _attention(run: Run, sample: Sample) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inputs = run.modality.collate([sample])
    seen = run.model.run(run.model.embed(inputs.values), inputs.mask, need_maps=True)
    weights = seen.self_attention()
    received = attention_received(weights, inputs.mask)[0]
    reached = rollout(torch.cat(weights)).mean(0)
    return _finite(received), _finite(reached)


def _integrated_gradients(run: Run, sample: Sample, target: int, deadline: Deadline) -> Attribution:
    example = embed(run.model, run.modality.collate([sample]))
    with torch.enable_grad():
        found = integrated_gradients(
            run.model, example, torch.tensor([target]), check=deadline.check
        )
    _finite(found.error)
    return found


def _not_converged(found: Attribution) -> str:
    return (
        f"their numerical integration is off by up to {float(found.error):.2g} after "
        f"{int(found.points)} points, more than {TOLERANCE:.0%} of what they should add up to"
    )


def _gathered(
    values: NDArray[np.float64] | None, positions: Sequence[int | None], size: int
) -> NDArray[np.float64] | None:
    if values is None:
        return None
    sums = np.zeros((*values.shape[:-1], size))
    for source, position in enumerate(positions):
        if position is not None:
            sums[..., position] += values[..., source]
    return sums


def _finite(values: torch.Tensor) -> NDArray[np.float64]:
    result: NDArray[np.float64] = values.double().numpy()
    if not np.isfinite(result).all():
        raise ArithmeticError("a score is not finite")
    return result
