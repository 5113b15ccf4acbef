"""Other content in the place of a sensitive region of an image, such that nothing else changes.

What stands in a region is replaced by what stands in a region of the same type and size in another
image; nothing is resized. The null is an area of that size of which nothing is sensitive, replaced
by the same area of another image. Whatever the model does differently, it does because of these
pixels.

Not covered: how much an area shows. Where the rest of an image is empty, the null changes little,
and a model that reads all areas alike moves more with a region that shows something.

Shapes: H × W pixels of C channels, T patches of P numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from attnpriv.audit.documents import Documents
from attnpriv.boxes import Box
from attnpriv.data.image.records import Pixels

TRIES = 8  # areas that are looked at for the null before a region is left out

Area = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class RegionCase:
    """A region with other content and black, and an area that is not sensitive likewise.

    Attributes:
        document: its number.
        entity_type: of the region.
        values: the image after each of these interventions, [KINDS, T, P].
    """

    document: int
    entity_type: str
    values: Tensor

    def variants(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the model reads after each intervention, and its mask, [KINDS, T]."""
        return self.values, mask.expand(len(self.values), -1)


class RegionSwapper:
    """Puts other content into the regions of images.

    Args:
        documents: images, whose regions and areas are taken for others, too.
        boxes: the sensitive regions of each.
        seed: of the replacements.
    """

    def __init__(self, documents: Documents, boxes: Sequence[Sequence[Box]], seed: int) -> None:
        self._documents, self._boxes, self._seed = documents, boxes, seed
        self._like: dict[tuple[str, int, int], list[tuple[int, Area]]] = defaultdict(list)
        for document, found in enumerate(boxes):
            for box in found:
                self._like[_kind(box)].append((document, _area(box)))

    def cases(self, document: int) -> Iterator[RegionCase]:
        """The regions of an image that have a replacement and an area for the null."""
        for number, box in enumerate(self._boxes[document]):
            rng = np.random.default_rng([self._seed, document, number])
            other = self._other_content(document, box, rng)
            null = self._other_area(document, box, rng)
            if other is not None and null is not None:
                edits = [(_area(box), other), (_area(box), None), null, (null[0], None)]
                yield RegionCase(document, box.entity_type, self._edited(document, edits))

    def _other_content(self, document: int, box: Box, rng: np.random.Generator) -> Pixels | None:
        """What a region of this type and size shows elsewhere, if it is anything else."""
        like, own = self._like[_kind(box)], self._image(document)[_area(box)]
        for i in rng.permutation(len(like)):
            other, area = like[i]
            content: Pixels = self._image(other)[area]
            if other != document and not np.array_equal(content, own):
                return content
        return None

    def _other_area(
        self, document: int, box: Box, rng: np.random.Generator
    ) -> tuple[Area, Pixels] | None:
        """An area of this size without anything sensitive, and what another image shows there."""
        size = box.bottom - box.top, box.right - box.left
        free = np.argwhere(~sliding_window_view(self._marked(document), size).any((2, 3)))
        for at in islice(rng.permutation(len(free)), TRIES):
            top, left = free[at].tolist()
            area = slice(top, top + size[0]), slice(left, left + size[1])
            own = self._image(document)[area]
            for other in rng.permutation(len(self._documents)):
                content = self._image(other)[area]
                if not (self._marked(other)[area].any() or np.array_equal(content, own)):
                    return area, content
        return None

    def _edited(self, document: int, edits: Sequence[tuple[Area, Pixels | None]]) -> Tensor:
        """The image after each edit by itself; None is black, [len(edits), T, P]."""
        images = []
        for area, content in edits:
            image = self._image(document).copy()
            image[area] = 0 if content is None else content
            images.append(image)
        samples = self._documents.modality.read(images)
        return torch.from_numpy(np.stack([sample.values for sample in samples]))

    def _image(self, document: int) -> Pixels:
        image: Pixels = self._documents.data.records[document]
        return image

    def _marked(self, document: int) -> NDArray[np.bool_]:
        """The pixels of patches that overlap a region, [H, W]."""
        marked = np.zeros(self._image(document).shape[:2], dtype=np.bool_)
        sample, flags = self._documents.samples[document], self._documents.sensitive[document]
        for (left, top, right, bottom), flag in zip(sample.places, flags, strict=True):
            marked[top:bottom, left:right] |= flag
        return marked


def _kind(box: Box) -> tuple[str, int, int]:
    """What regions must have in common: type, width and height."""
    return box.entity_type, box.right - box.left, box.bottom - box.top


def _area(box: Box) -> Area:
    return slice(box.top, box.bottom), slice(box.left, box.right)
