"""Hiding sensitive regions of an image before a model reads it: they become black.

Claim: two images that differ in no pixel outside of the regions give the same patches, and so the
same of all that is computed from these. Not covered: where the regions are and of which types,
which is shown; what nobody marked, since nothing looks for personal data in images; that what
surrounds a region may tell what was in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attnpriv.boxes import Box
from attnpriv.data.image.patches import Patched, Patches
from attnpriv.data.image.records import Pixels
from attnpriv.modality import Place, Sample
from attnpriv.sensitive.detector import placeholder


@dataclass(frozen=True)
class MaskedReading:
    """What a model reads of an image whose sensitive regions are black; see ``Reading``.

    Attributes:
        encoding: its patches.
        regions: what is hidden.
    """

    encoding: Patched
    regions: tuple[Box, ...]

    truncated = False
    substituted_truncated = False

    @property
    def substituted(self) -> Patched:
        """The same: black is what stands for a region, whatever its type."""
        return self.encoding

    @property
    def words(self) -> list[str]:
        """A placeholder for each patch of which anything is hidden; nothing for the others."""
        return ["".join(map(placeholder, self.types_at(place))) for place in self.encoding.places]

    def types_at(self, place: Place | None) -> tuple[str, ...]:
        """What is hidden of the patch at this place; empty where all of it is shown."""
        if place is None:
            return ()
        left, top, right, bottom = place
        return tuple(
            dict.fromkeys(
                box.entity_type
                for box in self.regions
                if left < box.right and box.left < right and top < box.bottom and box.top < bottom
            )
        )

    def positions(self, full: Sample) -> list[int | None]:
        """Where each patch of the original image is: all images are cut alike."""
        return list(range(full.size))

    def substituted_positions(self) -> list[int | None]:
        """As ``positions``."""
        return self.positions(self.encoding)


def read_masked(
    patches: Patches, images: Sequence[Pixels], regions: Sequence[Sequence[Box]] = ()
) -> list[MaskedReading]:
    """Blacken the sensitive regions of images, and cut what is left.

    Args:
        patches: how the model reads images.
        images: in any number.
        regions: for each image what is to be hidden, inside the image; or nothing.

    Raises:
        InputError: an image has another shape than the model reads.
    """
    each = [tuple(boxes) for boxes in regions] or [()] * len(images)
    masked = [masked_image(*pair) for pair in zip(images, each, strict=True)]
    return [MaskedReading(*pair) for pair in zip(patches.read(masked), each, strict=True)]


def masked_image(image: Pixels, regions: Sequence[Box]) -> Pixels:
    """A copy of an image in which the pixels of all regions are 0."""
    masked = np.array(image)
    for box in regions:
        masked[box.top : box.bottom, box.left : box.right] = 0
    return masked
