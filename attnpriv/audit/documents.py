"""Held-out documents as the measures need them: tokens, sensitive ones marked, one at a time.

A forward pass of one document has a shape that this document alone decides, so that neither its
neighbours nor its place among them change a bit of what is measured. In a batch they may: where the
model's widths are no multiple of the processor's vectors, a row's last bits depend on where it
lies (seen at a width of 15; not at 64 and 384).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.records import Dataset, Span
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import Encoding, Tokenizer
from attnpriv.modality import AttentionModel, Embedded, Inputs, content_of, embed

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Documents:
    """Tokenised records of one data set.

    Attributes:
        data: texts, labels and the spans that count as sensitive.
        modality: how they were read.
        encodings: one a record.
        sensitive: per record, which of its tokens overlap a span.
    """

    data: Dataset
    modality: Text
    encodings: tuple[Encoding, ...]
    sensitive: tuple[NDArray[np.bool_], ...]

    def __len__(self) -> int:
        return len(self.encodings)

    def content(self, document: int) -> NDArray[np.bool_]:
        """Which positions have a place in the text; the model added the others."""
        return np.array(content_of(self.encodings[document].places), dtype=np.bool_)

    def of_content(self, document: int, values: NDArray[Number]) -> NDArray[Number]:
        """What of ``values`` [..., T] belongs to the m positions with a place, [..., m]."""
        # Not by an index, which would turn the memory round: sums over [m] would round differently.
        return np.compress(self.content(document), values, axis=-1)

    def has_content(self, document: int) -> bool:
        """Whether there is such a position."""
        return bool(self.content(document).any())

    def inputs(self, documents: Sequence[int]) -> Inputs:
        """The given documents as a model takes them."""
        return self.modality.collate([self.encodings[d] for d in documents])

    def embedded(self, model: AttentionModel, document: int) -> Embedded:
        """One document embedded by the model, in a batch of its own."""
        return embed(model, self.inputs([document]))


def prepare(
    tokenizer: Tokenizer, max_length: int, data: Dataset, spans: Sequence[Sequence[Span]]
) -> Documents:
    """Tokenise a data set and mark the tokens that overlap the given spans."""
    modality = Text(tokenizer, max_length)
    encodings = tuple(modality.read(data.texts))
    sensitive = tuple(
        encoding.marks(found) for encoding, found in zip(encodings, spans, strict=True)
    )
    return Documents(data, modality, encodings, sensitive)


def sample(size: int, most: int, seed: int) -> list[int]:
    """At most that many of ``range(size)``, drawn without replacement, in order."""
    if size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(seed).choice(size, most, replace=False).tolist())
