"""What a frozen encoder makes of a data set, computed once for all trainings that share it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from attnpriv.data.modalities import AnyModality
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.modality import Sample
from attnpriv.models.classifier import AttentionClassifier, pooled_features
from attnpriv.replacing import replace_file

NAME = "features"  # of the one tensor in a file


@dataclass(frozen=True)
class Features:
    """What the head sees of the rows of a plan, as of ``models.classifier.pooled_features``.

    Attributes:
        rows: of those to train on.
        held_out: of the others.
    """

    rows: Tensor
    held_out: Tensor

    @classmethod
    def cut(cls, features: Tensor, rows: tuple[Sequence[int], Sequence[int]]) -> Features:
        """Those of all rows of a data set, [N, F], cut as the rows are."""
        return cls(*(features[[*part]] for part in rows))


class FeatureFolder:
    """Features of all rows of data sets, a file for each encoder and data set.

    Args:
        path: the folder, which is made, readable by its owner only, with the first file.

    A file is named after a hash of the encoder's weights, its configuration and the data set, and
    is written as a whole, so that an interruption leaves a complete file or none. All rows are
    computed in one pass, so that they are the same bits whoever asks first.

    Not covered: an exact function of the records is as private as they are, and no ε covers it.
    Whoever makes the folder removes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(
        self,
        model: AttentionClassifier,
        modality: AnyModality,
        data: Dataset,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """The features [N, F] of all rows, computed now or read.

        Args:
            model: its encoder is used as it is, and its head is not.
            modality: reads the rows for it.
            data: N rows.
            progress: called with the rows done and N, where they are computed.

        Raises:
            InputError: the file cannot be read.
        """
        path = self.path / f"{_hash(model, data)}.safetensors"
        if path.exists():
            return _read(path)
        samples: list[Sample] = [*modality.read(data.records)]
        features = pooled_features(model, modality, samples, progress=progress)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, safetensors.torch.save({NAME: features}), mode=0o600)
        return features


def _read(path: Path) -> Tensor:
    try:
        return safetensors.torch.load_file(path)[NAME]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"cannot read the features in {path}: delete it, and they are computed again"
        ) from error


def _hash(model: AttentionClassifier, data: Dataset) -> str:
    """Of all that the features depend on: every weight but the head's, the shape, and the rows."""
    digest = hashlib.sha256(json.dumps(model.config.to_dict(), sort_keys=True).encode())
    digest.update(data.fingerprint().encode())
    head = {id(parameter) for parameter in model.head.parameters()}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in head:
            digest.update(f"{name} {tensor.dtype} {[*tensor.shape]}".encode())
            digest.update(tensor.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()
