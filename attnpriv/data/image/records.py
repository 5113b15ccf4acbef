"""A data set of images.

Shapes: H height and W width in pixels, C channels: 1 of grey images, 3 of colour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from attnpriv.boxes import Box
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError

Pixels = NDArray[np.uint8]
"""An image [H, W, C]; 0 is black."""


@dataclass(frozen=True, eq=False)
class Images(Dataset):
    """Labelled images, all of one shape; see ``Dataset``.

    Attributes:
        name: as in ``Dataset``.
        images: one per record, [H, W, C] each.
        labels: as in ``Dataset``.
        label_names: as in ``Dataset``.
        boxes: sensitive regions, one tuple per record, or None if nobody marked them.
        data_dependent: as in ``Dataset``.

    Raises:
        InputError: images of different shapes, or a label without a name.
    """

    kind = "image"

    name: str
    images: tuple[Pixels, ...]
    labels: tuple[int, ...]
    label_names: tuple[str, ...]
    boxes: tuple[tuple[Box, ...], ...] | None = None
    data_dependent: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_labels()
        for row, image in enumerate(self.images):
            if image.shape != self.pixels:
                raise InputError(
                    f"expected images of one size, {described(self.pixels)}, got "
                    f"{described(image.shape)} in row {row}"
                )

    @property
    def pixels(self) -> tuple[int, int, int]:
        """H, W and C of every image."""
        height, width, channels = self.images[0].shape
        return height, width, channels

    @property
    def records(self) -> tuple[Pixels, ...]:
        """The images."""
        return self.images

    @property
    def keys(self) -> tuple[str, ...]:
        """SHA-256 of the shape and the pixels of each image."""
        return tuple(
            hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()
            for image in self.images
        )

    @property
    def regions(self) -> tuple[tuple[Box, ...], ...] | None:
        """The boxes."""
        return self.boxes

    def relabelled(self, labels: Sequence[int], label_names: Sequence[str]) -> Images:
        """As in ``Dataset``."""
        return replace(self, labels=tuple(labels), label_names=tuple(label_names))

    def subset(self, indices: Sequence[int]) -> Images:
        """As in ``Dataset``."""
        return replace(
            self,
            images=tuple(self.images[i] for i in indices),
            labels=tuple(self.labels[i] for i in indices),
            boxes=None if self.boxes is None else tuple(self.boxes[i] for i in indices),
        )


def described(shape: Sequence[int]) -> str:
    """A shape in words, as users know it.

    >>> described((8, 16, 1))
    '16 × 8 grey pixels'
    """
    height, width, channels = shape
    return f"{width} × {height} {'grey' if channels == 1 else 'colour'} pixels"
