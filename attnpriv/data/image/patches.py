"""Images as models take them: cut into square patches, row by row from the top left.

Shapes: B images of H × W pixels and C channels, T patches of p × p pixels, P = p·p·C numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnpriv.boxes import Box
from attnpriv.data.image.records import Pixels, described
from attnpriv.data.unknown import Unknown
from attnpriv.errors import InputError
from attnpriv.modality import Inputs

Corners = tuple[int, int, int, int]
"""Left, top, right and bottom of a patch, in pixels."""


@dataclass(frozen=True, eq=False)
class Patched:
    """One image, cut into patches.

    Attributes:
        values: the pixels of each patch, from 0, black, to 1, [T, P].
        places: where each patch is.
    """

    values: NDArray[np.float32]
    places: tuple[Corners, ...]

    @property
    def size(self) -> int:
        """How many patches there are."""
        return len(self.places)

    @property
    def extents(self) -> list[int]:
        """Pixels of the image in each patch; the last of a row or column may have less."""
        return [(right - left) * (bottom - top) for left, top, right, bottom in self.places]

    def marks(self, regions: Iterable[Box]) -> NDArray[np.bool_]:
        """Which patches share a pixel with one of the boxes, [T]."""
        left, top, right, bottom = np.array(self.places).T
        marked = np.zeros(len(self.places), dtype=np.bool_)
        for box in regions:
            across = (left < box.right) & (right > box.left)
            marked |= across & (top < box.bottom) & (bottom > box.top)
        return marked


@dataclass(frozen=True)
class Patches:
    """How one model reads images.

    Attributes:
        height: H of every image.
        width: W of every image.
        channels: C of every image.
        patch: p. Where it does not divide H or W, black pixels fill up the last patches.
    """

    height: int
    width: int
    channels: int
    patch: int

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return -(-self.height // self.patch), -(-self.width // self.patch)

    @property
    def places(self) -> tuple[Corners, ...]:
        """Where each patch is; every image is cut alike."""
        p, (rows, columns) = self.patch, self.grid
        return tuple(
            (x * p, y * p, min(self.width, (x + 1) * p), min(self.height, (y + 1) * p))
            for y in range(rows)
            for x in range(columns)
        )

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which numbers of each patch are pixels of the image and not what fills it up, [T, P]."""
        return self._patches(np.ones((self.height, self.width, self.channels), np.float32)) > 0

    def read(self, records: Sequence[Pixels]) -> list[Patched]:
        """Cut images, in their order.

        Raises:
            InputError: an image has another shape.
        """
        places = self.places
        return [Patched(self._cut(image), places) for image in records]

    def moved(self, sample: Patched, down: int, right: int) -> Patched:
        """The same image, moved by so many pixels; what comes into sight is black."""
        p, (rows, columns) = self.patch, self.grid
        blocks = sample.values.reshape(rows, columns, p, p, self.channels).swapaxes(1, 2)
        image = blocks.reshape(rows * p, columns * p, self.channels)[: self.height, : self.width]
        moved = np.zeros_like(image)
        (to_y, from_y), (to_x, from_x) = _overlap(down), _overlap(right)
        moved[to_y, to_x] = image[from_y, from_x]
        return Patched(self._patches(moved), sample.places)

    def collate(self, samples: Sequence[Patched]) -> Inputs:
        """B images in one batch: values [B, T, P]."""
        values = torch.from_numpy(np.stack([sample.values for sample in samples]))
        everywhere = torch.ones(values.shape[:2], dtype=torch.bool)
        return Inputs(values, torch.zeros_like(values), everywhere, everywhere)

    def unknown(self, records: Sequence[Pixels], samples: Sequence[Patched]) -> Unknown:
        """Nothing: whatever a pixel holds, it is read."""
        return Unknown(0.0, len(records), 0)

    def sees(self, sample: Patched) -> bool:
        """Always: a black image is an image."""
        return True

    def is_truncated(self, record: Pixels, sample: Patched) -> bool:
        """Never: every pixel is in a patch."""
        return False

    def words(self, record: Pixels, sample: Patched) -> list[str]:
        """No words."""
        return [""] * sample.size

    def _cut(self, image: Pixels) -> NDArray[np.float32]:
        if image.shape != (expected := (self.height, self.width, self.channels)):
            raise InputError(
                f"expected images of {described(expected)}, got {described(image.shape)}"
            )
        return self._patches(image.astype(np.float32) / np.float32(255))

    def _patches(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        p, (rows, columns) = self.patch, self.grid
        filled = np.zeros((rows * p, columns * p, self.channels), dtype=np.float32)
        filled[: self.height, : self.width] = image
        blocks = filled.reshape(rows, p, columns, p, self.channels).swapaxes(1, 2)
        return blocks.reshape(rows * columns, -1)


def _overlap(by: int) -> tuple[slice, slice]:
    """Where along an axis the pixels go to, and where they come from."""
    return slice(max(by, 0), min(by, 0) or None), slice(max(-by, 0), min(-by, 0) or None)
