"""Copies of a training record with small random changes, whose gradients are averaged into one.

The average is clipped, so the copies of a record together count as one record for the accountant:
ε is that of a training without them (augmentation multiplicity; De et al. 2022, arXiv:2204.13650,
section 3.2).

=================  =====================================================================
``deletion:RATE``  of a text, each token is left out with this chance
``shift:PIXELS``   an image is moved by up to so many pixels in each direction, black behind
=================  =====================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from attnpriv.config import Augmentation
from attnpriv.data.image.patches import Patched, Patches
from attnpriv.data.modalities import AnyModality
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.modality import Sample


def copies_of(
    modality: AnyModality,
    samples: Sequence[Sample],
    augmentation: Augmentation | None,
    multiplicity: int,
    seed: int,
) -> list[Any]:
    """Each sample followed by its changed copies, [N·K]; K is 1 without augmentation.

    Claim: the copies of a record are a function of that record and of the seed alone, so that a
    record more or less changes no copy of another. They are drawn once, before the first step.

    Args:
        modality: how the samples were read.
        samples: N of them.
        augmentation: what is changed.
        multiplicity: K, the sample itself counted.
        seed: public.

    Raises:
        InputError: the augmentation is not one of this kind of record, or an image would be moved
            out of sight.
    """
    if augmentation is None:
        return list(samples)
    check_augmentation(modality, augmentation)
    found: list[Any] = []
    for sample in samples:
        draw = np.random.default_rng(_seed_of(sample, seed))
        found.append(sample)
        found += (_changed(modality, sample, augmentation, draw) for _ in range(multiplicity - 1))
    return found


def check_augmentation(modality: AnyModality, augmentation: Augmentation) -> None:
    """Refuse what does not go with a kind of record; see ``copies_of``."""
    of_images = isinstance(modality, Patches)
    if of_images != (augmentation.kind == "shift"):
        expected = "shift:PIXELS" if of_images else "deletion:RATE"
        kind = "images" if of_images else "texts"
        raise InputError(f"expected augmentation {expected} for {kind}, got {augmentation}")
    if isinstance(modality, Patches):
        least = min(modality.height, modality.width)
        if augmentation.amount >= least:
            raise InputError(f"expected a shift of less than {least} pixels, got {augmentation}")


def _seed_of(sample: Sample, seed: int) -> list[int]:
    content = np.ascontiguousarray(sample.values).tobytes()
    digest = hashlib.blake2b(content, digest_size=16).digest()
    return [seed, *np.frombuffer(digest, dtype=np.uint32).tolist()]


def _changed(
    modality: AnyModality, sample: Sample, augmentation: Augmentation, draw: np.random.Generator
) -> Sample:
    if isinstance(modality, Patches):
        assert isinstance(sample, Patched)
        most = int(augmentation.amount)
        down, right = draw.integers(-most, most, size=2, endpoint=True).tolist()
        return modality.moved(sample, down, right)
    assert isinstance(sample, Encoding)
    return _shortened(sample, draw.random(sample.size) >= augmentation.amount)


def _shortened(sample: Encoding, kept: np.ndarray) -> Encoding:
    """A text without the tokens that are not kept; what the model added stays."""

    def left() -> Iterator[tuple[int, Any]]:
        for token, place, stays in zip(sample.ids, sample.places, kept, strict=True):
            if stays or place is None:
                yield token, place

    ids, places = zip(*left(), strict=True)
    return Encoding(ids, places)
