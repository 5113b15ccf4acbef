"""Held-out documents as the measures need them: positions, sensitive ones marked, one at a time.

A forward pass of one document has a shape that this document alone decides, so that neither its
neighbours nor its place among them change a bit of what is measured. In a batch they may: where the
model's widths are no multiple of the processor's vectors, a row's last bits depend on where it
lies (seen at a width of 15; not at 64 and 384).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.modalities import AnyModality
from attnpriv.data.records import Dataset
from attnpriv.modality import AttentionModel, Embedded, Inputs, content_of, embed

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class Documents:
    """Records of one data set, as a model reads them.

    Attributes:
        data: records and labels.
        modality: how they were read.
        samples: one a record.
        sensitive: per record, which of its positions overlap a region that counts as sensitive.
    """

    data: Dataset
    modality: AnyModality
    samples: tuple[Any, ...]
    sensitive: tuple[NDArray[np.bool_], ...]

    def __len__(self) -> int:
        return len(self.samples)

    def content(self, document: int) -> NDArray[np.bool_]:
        """Which positions have a place in the record; the model added the others."""
        return np.array(content_of(self.samples[document].places), dtype=np.bool_)

    def of_content(self, document: int, values: NDArray[Number]) -> NDArray[Number]:
        """What of ``values`` [..., T] belongs to the m positions with a place, [..., m]."""
        # Not by an index, which would turn the memory round: sums over [m] would round differently.
        return np.compress(self.content(document), values, axis=-1)

    def has_content(self, document: int) -> bool:
        """Whether there is such a position."""
        return bool(self.content(document).any())

    def inputs(self, documents: Sequence[int]) -> Inputs:
        """The given documents as a model takes them."""
        return self.modality.collate([self.samples[d] for d in documents])

    def embedded(self, model: AttentionModel, document: int) -> Embedded:
        """One document embedded by the model, in a batch of its own."""
        return embed(model, self.inputs([document]))


def prepare(modality: AnyModality, data: Dataset, regions: Sequence[Sequence[Any]]) -> Documents:
    """Read a data set and mark the positions that overlap the given regions."""
    samples = tuple(modality.read(data.records))
    sensitive = tuple(sample.marks(found) for sample, found in zip(samples, regions, strict=True))
    return Documents(data, modality, samples, sensitive)


def partly_sensitive(documents: Documents) -> list[int]:
    """The documents of which some positions are sensitive, and some with a place are not."""
    counts = [(own.sum(), documents.content(d).sum()) for d, own in enumerate(documents.sensitive)]
    return [d for d, (marked, all_) in enumerate(counts) if 0 < marked < all_]


def sample(size: int, most: int, seed: int) -> list[int]:
    """At most that many of ``range(size)``, drawn without replacement, in order."""
    if size <= most:
        return list(range(size))
    return sorted(np.random.default_rng(seed).choice(size, most, replace=False).tolist())
