"""Texts as models take them: read by a tokeniser, filled up to one length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.data.tokenisation import Encoding, Tokenizer
from attnpriv.data.unknown import Unknown, has_known, unknown_in
from attnpriv.modality import Inputs, content_of


@dataclass(frozen=True)
class Text:
    """How one model reads texts.

    Attributes:
        tokenizer: the model's own.
        max_length: tokens at most, those that the model adds counted; longer texts are cut.
    """

    tokenizer: Tokenizer
    max_length: int

    def read(self, records: Sequence[str]) -> list[Encoding]:
        """Tokenise texts, in their order."""
        return self.tokenizer.encode_batch(records, self.max_length)

    def collate(self, samples: Sequence[Encoding]) -> Inputs:
        """B tokenised texts in one batch; the longest of them decides T."""
        ids, mask = pad_batch(samples, self.tokenizer.pad_id)
        content = torch.zeros_like(mask)
        for row, sample in enumerate(samples):
            content[row, : sample.size] = torch.tensor(content_of(sample.places))
        return Inputs(ids, torch.full_like(ids, self.tokenizer.pad_id), mask, content)

    def unknown(self, records: Sequence[str], samples: Sequence[Encoding]) -> Unknown:
        """What of texts the tokeniser has no words for."""
        return unknown_in(self.tokenizer, records, samples)

    def sees(self, sample: Encoding) -> bool:
        """Whether there is a token of the text, other than the unknown one.

        Tokenisers drop some characters that are seen, and know no word of some scripts.
        """
        return has_known(self.tokenizer, sample)

    def is_truncated(self, record: str, sample: Encoding) -> bool:
        """Whether the encoding is full and anything but white space follows its last token."""
        return sample.size == self.max_length and bool(record[sample.end :].strip())

    def words(self, record: str, sample: Encoding) -> list[str]:
        """The tokens, as they stand in the text."""
        return sample.words(record)


def pad_batch(encodings: Sequence[Encoding], pad_id: int) -> tuple[Tensor, Tensor]:
    """Stack encodings into ids [B, T] and mask [B, T], T being the longest of them."""
    width = max((len(e.ids) for e in encodings), default=0)
    ids = torch.full((len(encodings), width), pad_id, dtype=torch.int64)
    mask = torch.zeros(len(encodings), width, dtype=torch.bool)
    for row, encoding in enumerate(encodings):
        ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids, dtype=torch.int64)
        mask[row, : len(encoding.ids)] = True
    return ids, mask
