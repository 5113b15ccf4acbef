"""Class probabilities of records, the same for evaluation, serving and audit; and objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attnpriv.data.tokenisation import Encoding
from attnpriv.models.classifier import pooled_features
from attnpriv.runs.folder import Run
from attnpriv.tasks import CLASSIFY


def encode_texts(run: Run, texts: Sequence[str]) -> list[Encoding]:
    """Tokenise for the run's model, cutting texts that are longer than it can read."""
    return run.text.read(texts)


def predict_probabilities(
    run: Run,
    records: Sequence[Any],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """Class probabilities, [N, K], in the order of the records.

    Args:
        run: the model.
        records: N of what the run reads.
        batch_size: as in ``pooled_features``.
        progress: as in ``pooled_features``.
    """
    return probabilities_of(run, run.modality.read(records), batch_size, progress)


def probabilities_of(
    run: Run,
    samples: Sequence[Any],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """``predict_probabilities`` of records that the run's modality has read."""
    features = pooled_features(run.model, run.modality, samples, batch_size, progress)
    with torch.no_grad():
        probabilities: NDArray[np.float32] = CLASSIFY.answer(run.model.head(features)).numpy()
    return probabilities


@torch.no_grad()
def predict_objects(
    run: Run, records: Sequence[Any], progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """What a detector finds, as of ``attnpriv.detection``, [N, Q, K + 5] in order of the records.

    Args:
        run: of a detector.
        records: N images.
        progress: as in ``pooled_features``.
    """
    samples = run.modality.read(records)
    outputs: Tensor = run.model.head(
        pooled_features(run.model, run.modality, samples, progress=progress)
    )
    return outputs
