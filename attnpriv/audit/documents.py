"""Held-out documents as the measures need them: tokens, sensitive ones marked, one at a time.

A forward pass of one document has a shape that this document alone decides, so that neither its
neighbours nor its place among them change a bit of what is measured. In a batch they may: where the
model's widths are no multiple of the processor's vectors, a row's last bits depend on where it
lies (seen at a width of 15; not at 64 and 384).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from attnpriv.data.records import Dataset, Span
from attnpriv.data.spans import sensitive_tokens
from attnpriv.data.tokenisation import Encoding, Tokenizer
from attnpriv.models.text import pad_batch


@dataclass(frozen=True)
class Documents:
    """Tokenised records of one data set.

    Attributes:
        data: texts, labels and the spans that count as sensitive.
        encodings: one a record.
        sensitive: per record, which of its tokens overlap a span.
        pad_id: the tokeniser's.
    """

    data: Dataset
    encodings: tuple[Encoding, ...]
    sensitive: tuple[NDArray[np.bool_], ...]
    pad_id: int

    def __len__(self) -> int:
        return len(self.encodings)

    def content(self, document: int) -> slice:
        """The positions between [CLS] and [SEP]."""
        return slice(1, len(self.encodings[document].ids) - 1)

    def batches(self, documents: Sequence[int]) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Each document in a batch of its own: its number, ids [1, T] and mask [1, T]."""
        for document in documents:
            yield [document], *self.padded([document])

    def padded(self, documents: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Ids [B, T] and mask [B, T] of the given documents."""
        return pad_batch([self.encodings[d] for d in documents], self.pad_id)


def prepare(
    tokenizer: Tokenizer, max_length: int, data: Dataset, spans: Sequence[Sequence[Span]]
) -> Documents:
    """Tokenise a data set and mark the tokens that overlap the given spans."""
    encodings = tuple(tokenizer.encode_batch(data.texts, max_length))
    sensitive = tuple(
        np.array(sensitive_tokens(encoding.offsets, found), dtype=np.bool_)
        for encoding, found in zip(encodings, spans, strict=True)
    )
    return Documents(data, encodings, sensitive, tokenizer.pad_id)


def sample(size: int, most: int, seed: int) -> list[int]:
    """At most that many of ``range(size)``, drawn without replacement, in order."""
    if size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(seed).choice(size, most, replace=False).tolist())
