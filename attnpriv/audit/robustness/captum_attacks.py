"""FGSM and PGD on the token embeddings, by ``captum.robust``.

Captum knows one radius for a batch. So that each row can have its own, it moves what is added to
the embeddings, in units of the row's radius.

Sources: Goodfellow et al. 2015 (arXiv:1412.6572), Madry et al. 2018 (arXiv:1706.06083).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from captum.robust import FGSM, PGD
from torch import Tensor

from attnpriv.audit.robustness.batches import Answer, Batch
from attnpriv.tasks import CLASSIFY

PGD_STEPS = 6
STEP = 2.5 / PGD_STEPS  # of the radius: the steps can cross the ball and come back
# Captum takes gradients below 1e-6 for zero, and so would leave confident documents where they are.
ANY_GRADIENT = 0.0

Attack = Callable[[Answer, Batch, Tensor], Tensor]
"""Moves each row of a batch within its own radius (L∞), [B], to embeddings [B, T, D]."""


def fgsm(answer: Answer, batch: Batch, radii: Tensor) -> Tensor:
    """One step of the full radius along the sign of the loss's gradient, [B, T, D]."""
    attack = FGSM(_of_moves(answer, batch, radii), CLASSIFY.losses)
    attack.zero_thresh = ANY_GRADIENT
    still = torch.zeros_like(batch.x)
    with _captum_warnings_ignored():
        moves = attack.perturb(still, 1.0, batch.labels, mask=batch.movable)
    return _moved(batch, radii, moves.detach())


def pgd(answer: Answer, batch: Batch, radii: Tensor) -> Tensor:
    """Projected gradient steps within the ball of the given radii, [B, T, D]."""
    attack = PGD(_of_moves(answer, batch, radii), CLASSIFY.losses)
    attack.fgsm.zero_thresh = ANY_GRADIENT
    still = torch.zeros_like(batch.x)
    with _captum_warnings_ignored():
        moves = attack.perturb(still, 1.0, STEP, PGD_STEPS, batch.labels, mask=batch.movable)
    return _moved(batch, radii, moves.detach())


def _of_moves(answer: Answer, batch: Batch, radii: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda moves: answer(_moved(batch, radii, moves), batch.mask)


def _moved(batch: Batch, radii: Tensor, moves: Tensor) -> Tensor:
    return batch.x + radii[:, None, None].to(moves) * moves


@contextmanager
def _captum_warnings_ignored() -> Iterator[None]:
    """Captum warns at every step that it switches on the gradients it was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        yield
