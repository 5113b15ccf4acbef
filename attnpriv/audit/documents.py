"""Held-out documents as the measures need them: tokens, sensitive ones marked, in batches."""

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

SQUARE_TOKENS = 32 * 64 * 64  # B·T·T of one batch: bounds the memory of attention weights


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

    def batches(
        self, documents: Sequence[int], most: int = 32
    ) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Document numbers with their ids [B, T] and mask [B, T], shortest first."""
        batch: list[int] = []
        for document in sorted(documents, key=lambda d: (len(self.encodings[d].ids), d)):
            width = len(self.encodings[document].ids)
            if batch and (len(batch) == most or (len(batch) + 1) * width**2 > SQUARE_TOKENS):
                yield batch, *self.padded(batch)
                batch = []
            batch.append(document)
        if batch:
            yield batch, *self.padded(batch)

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
