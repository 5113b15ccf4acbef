"""Images and labels in IDX files, as MNIST is published: a header, then bytes.

Shapes: N images of H × W grey pixels.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.image.records import Images
from attnpriv.errors import InputError

TRAIN = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
MOST = 2**30  # bytes of a file, unpacked
UNSIGNED = 8  # the code of bytes as numbers
Bytes = NDArray[np.uint8]


def has_idx(folder: Path) -> bool:
    """Whether a folder holds images of one of the parts."""
    return any(_find(folder, part[0]) for part in (TRAIN, TEST))


def read_idx_folder(folder: Path) -> Images:
    """The training part of a folder of IDX files, or the test part where there is no other.

    Files may end in ``.gz``. Classes are the numbers from 0 to the largest label.

    Raises:
        InputError: a file is missing, is no IDX file, or they do not fit together.
    """
    part = TRAIN if _find(folder, TRAIN[0]) else TEST
    images, labels = (read_idx(folder, name, 3 - 2 * i) for i, name in enumerate(part))
    if len(images) != len(labels) or not len(images):
        raise InputError(
            f"{folder}: expected as many labels as images, got {len(labels)} and {len(images)}"
        )
    names = tuple(map(str, range(max(2, int(labels.max()) + 1))))
    pixels = tuple(image[..., None] for image in images)
    return Images(folder.resolve().name, pixels, tuple(labels.tolist()), names)


def read_idx(folder: Path, name: str, dimensions: int) -> Bytes:
    """The bytes of one file, in its own shape.

    Raises:
        InputError: the file is missing, damaged, or holds something else.
    """
    path = _find(folder, name)
    if path is None:
        raise InputError(f"{folder}: expected a file {name}, or {name}.gz")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MOST + 1)
    except (OSError, EOFError) as error:
        raise InputError(f"cannot read {path}: it is damaged, or not readable") from error
    header = 4 + 4 * dimensions
    if content[:4] != bytes((0, 0, UNSIGNED, dimensions)) or len(content) < header:
        raise InputError(f"{path}: expected an IDX file of bytes in {dimensions} dimensions")
    shape = np.frombuffer(content[4:header], ">u4").astype(int)
    expected = int(np.prod(shape, dtype=object))
    if len(content) - header != expected or 0 in shape[1:]:
        found = " × ".join(map(str, shape))
        raise InputError(f"{path}: expected {found} bytes, got {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
