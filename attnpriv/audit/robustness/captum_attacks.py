"""FGSM and PGD on the token embeddings, by ``captum.robust``.

Sources: Goodfellow et al. 2015 (arXiv:1412.6572), Madry et al. 2018 (arXiv:1706.06083).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from captum.robust import FGSM, PGD
from torch import Tensor

from attnpriv.audit.robustness.batches import Answer, Batch
from attnpriv.tasks import CLASSIFY

PGD_STEPS = 6
STEP = 2.5 / PGD_STEPS  # of the radius: the steps can cross the ball and come back
# Captum takes gradients below 1e-6 for zero, and so would leave confident documents where they are.
ANY_GRADIENT = 0.0

Attack = Callable[[Answer, Batch, float], Tensor]
"""Moves a batch within a radius (L∞): to embeddings [B, T, D]."""


def fgsm(answer: Answer, batch: Batch, radius: float) -> Tensor:
    """One step of the given size along the sign of the loss's gradient, [B, T, D]."""
    attack = FGSM(answer, CLASSIFY.losses)
    attack.zero_thresh = ANY_GRADIENT
    with _captum_warnings_ignored():
        moved: Tensor = attack.perturb(
            batch.x, radius, batch.labels, additional_forward_args=(batch.mask,), mask=batch.movable
        )
    return moved.detach()


def pgd(answer: Answer, batch: Batch, radius: float) -> Tensor:
    """Projected gradient steps within the ball of the given radius, [B, T, D]."""
    attack = PGD(answer, CLASSIFY.losses)
    attack.fgsm.zero_thresh = ANY_GRADIENT
    with _captum_warnings_ignored():
        moved: Tensor = attack.perturb(
            batch.x,
            radius,
            radius * STEP,
            PGD_STEPS,
            batch.labels,
            additional_forward_args=(batch.mask,),
            mask=batch.movable,
        )
    return moved.detach()


@contextmanager
def _captum_warnings_ignored() -> Iterator[None]:
    """Captum warns at every step that it switches on the gradients it was asked for."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Input Tensor .* did not already require gradients")
        yield
