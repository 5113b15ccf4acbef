"""A data set once it has been read, wherever it came from."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from attnpriv.config import Kind
from attnpriv.errors import InputError
from attnpriv.spans import Span as Span


class Dataset(ABC):
    """Labelled records in their original order, whatever they are.

    Attributes:
        kind: what its records are.
        name: what to call it in reports; never a path.
        labels: class numbers, indices into ``label_names``.
        label_names: the classes.
        data_dependent: what was decided by looking at the records, in words. No ε covers it, so the
            privacy ledger must list it as "not covered".
    """

    kind: ClassVar[Kind]
    name: str
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    data_dependent: tuple[str, ...]

    @property
    @abstractmethod
    def records(self) -> tuple[Any, ...]:
        """What a model of this kind reads, one each."""

    @property
    @abstractmethod
    def keys(self) -> tuple[str, ...]:
        """What tells one record from another; records with equal keys are copies."""

    @property
    @abstractmethod
    def regions(self) -> tuple[tuple[Any, ...], ...] | None:
        """The parts of each record that are personal data, or None if nobody marked them."""

    @property
    def detects(self) -> bool:
        """Whether its models find objects; those of other data name one class."""
        return False

    @property
    def targets(self) -> NDArray[Any]:
        """What a task learns of each record; of classification, class numbers [N]."""
        return np.array(self.labels, dtype=np.int64)

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """Height, width and channels of images; None of other records."""
        return None

    @abstractmethod
    def subset(self, indices: Sequence[int]) -> Self:
        """The records at the given positions, in that order."""

    @abstractmethod
    def relabelled(self, labels: Sequence[int], label_names: Sequence[str]) -> Self:
        """The same records with their classes numbered and named in another way."""

    def __len__(self) -> int:
        return len(self.labels)

    def fingerprint(self) -> str:
        """SHA-256 over the keys of all records and their label names, in order.

        Not covered by any ε: anyone who knows all records but one can test guesses at the last.
        """
        digest = hashlib.sha256()
        for key, label in zip(self.keys, self.labels, strict=True):
            digest.update(json.dumps([key, self.label_names[label]]).encode())
        return digest.hexdigest()

    def regions_fingerprint(self) -> str | None:
        """SHA-256 over the regions of personal data, in order; None where there are none.

        Not covered by any ε either.
        """
        if self.regions is None:
            return None
        plain = [[astuple(region) for region in own] for own in self.regions]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def _check_labels(self) -> None:
        classes = len(self.label_names)
        for row, label in enumerate(self.labels):
            if not 0 <= label < classes:
                raise InputError(
                    f"expected labels from 0 to {classes - 1}, the numbers of the classes, "
                    f"got labels[{row}] = {label}"
                )


@dataclass(frozen=True)
class Texts(Dataset):
    """Labelled texts; see ``Dataset``.

    Attributes:
        name: as in ``Dataset``.
        texts: one per record.
        labels: as in ``Dataset``.
        label_names: as in ``Dataset``.
        spans: gold spans of personal data, one tuple per record, or None if nobody marked them.
        data_dependent: as in ``Dataset``.

    Raises:
        InputError: a label has no name.
    """

    kind = "text"

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...] | None = None
    data_dependent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_labels()

    @property
    def records(self) -> tuple[str, ...]:
        """The texts."""
        return self.texts

    @property
    def keys(self) -> tuple[str, ...]:
        """The texts."""
        return self.texts

    @property
    def regions(self) -> tuple[tuple[Span, ...], ...] | None:
        """The spans."""
        return self.spans

    def relabelled(self, labels: Sequence[int], label_names: Sequence[str]) -> Texts:
        """As in ``Dataset``."""
        return replace(self, labels=tuple(labels), label_names=tuple(label_names))

    def subset(self, indices: Sequence[int]) -> Texts:
        """As in ``Dataset``."""
        return replace(
            self,
            texts=tuple(self.texts[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            spans=None if self.spans is None else tuple(self.spans[i] for i in indices),
        )
