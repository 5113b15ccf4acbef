"""A data set once it has been read, wherever it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from attnpriv.errors import InputError
from attnpriv.spans import Span as Span


@dataclass(frozen=True)
class Dataset:
    """Labelled texts in their original order.

    Attributes:
        name: what to call it in reports; never a path.
        texts: one per record.
        labels: class numbers, indices into ``label_names``.
        label_names: the classes.
        spans: gold spans of personal data, one tuple per record, or None if nobody marked them.
        data_dependent: what was decided by looking at the records, in words. No ε covers it, so the
            privacy ledger must list it as "not covered".

    Raises:
        InputError: a label has no name.
    """

    name: str
    texts: tuple[str, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    spans: tuple[tuple[Span, ...], ...] | None = None
    data_dependent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        classes = len(self.label_names)
        for row, label in enumerate(self.labels):
            if not 0 <= label < classes:
                raise InputError(
                    f"expected labels from 0 to {classes - 1}, the numbers of the classes, "
                    f"got labels[{row}] = {label}"
                )

    def __len__(self) -> int:
        return len(self.texts)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The records at the given positions, in that order."""
        return Dataset(
            name=self.name,
            texts=tuple(self.texts[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            label_names=self.label_names,
            spans=None if self.spans is None else tuple(self.spans[i] for i in indices),
            data_dependent=self.data_dependent,
        )

    def fingerprint(self) -> str:
        """SHA-256 over all texts and label names, in order.

        Not covered by any ε: anyone who knows all records but one can test guesses at the last.
        """
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            digest.update(json.dumps([text, self.label_names[label]]).encode())
        return digest.hexdigest()

    def spans_fingerprint(self) -> str | None:
        """SHA-256 over the gold spans, in order; None where there are none.

        Not covered by any ε either.
        """
        if self.spans is None:
            return None
        plain = [[(s.start, s.end, s.entity_type) for s in spans] for spans in self.spans]
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()
