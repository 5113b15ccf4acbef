"""Images in one file of NumPy arrays, ``.npz``.

Its arrays are ``images``, [N, H, W] or [N, H, W, C] of bytes; ``labels``, [N], whole numbers or
strings; and, where sensitive pixels are marked, ``masks``, [N, H, W], 0 where nothing is sensitive.
Nothing in it is unpickled. Errors never quote what an image shows.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnpriv.data.image.masks import boxes_of
from attnpriv.data.image.records import Images
from attnpriv.data.labels import choose_classes, number_labels
from attnpriv.errors import InputError
from attnpriv.labels import label_name

SUFFIX = ".npz"
MOST = 2**32  # bytes of all arrays together
IMAGES, LABELS, MASKS = "images", "labels", "masks"
# What NumPy and zipfile raise of files that are none, or cut off.
DAMAGED = (
    ValueError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
)


def read_npz(
    path: Path, *, label_names: Sequence[str] | None = None, classes: int | None = None
) -> Images:
    """Read labelled images.

    Args:
        path: of the file.
        label_names: the classes of a trained model. None takes the distinct labels, sorted.
        classes: the number of classes, which confirms names that do not look like classes.

    Raises:
        InputError: the file is no such file, or whatever is wrong with an array or the labels.
    """
    try:
        images, labels, masks = _arrays(path)
        named = [label_name(label) for label in labels.tolist()]
        data = Images(
            name=path.stem,
            images=tuple(images),
            labels=(0,) * len(images),
            label_names=("",),
            boxes=None if masks is None else tuple(map(boxes_of, masks)),
            data_dependent=() if label_names else ("the names of the classes",),
        )
        names = tuple(label_names or ()) or choose_classes(
            named, data.keys, first_row=0, has_header=True, confirmed=classes
        )
        return data.relabelled(number_labels(named, names, 0, True), names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _arrays(path: Path) -> tuple[NDArray[np.uint8], NDArray[Any], NDArray[Any] | None]:
    """The images [N, H, W, C], the labels [N] and the masks [N, H, W], if there are any."""
    found = _load(path)
    images, labels, masks = found.get(IMAGES), found.get(LABELS), found.get(MASKS)
    if images is None or labels is None:
        raise InputError(
            f"expected arrays {IMAGES} and {LABELS}, got {', '.join(sorted(found)) or 'none'}"
        )
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or not images.size:
        raise InputError(
            f"expected {IMAGES} of bytes in [N, H, W] or [N, H, W, C], got {_described(images)}"
        )
    images = images if images.ndim == 4 else images[..., None]
    if images.shape[3] not in (1, 3):
        raise InputError(f"expected 1 or 3 channels, got {images.shape[3]}")
    if labels.shape != (len(images),) or labels.dtype.kind not in "iuU":
        raise InputError(
            f"expected {len(images)} {LABELS}, whole numbers or strings, got {_described(labels)}"
        )
    if masks is not None and (masks.shape != images.shape[:3] or masks.dtype.kind not in "biu"):
        raise InputError(
            f"expected {MASKS} of {' × '.join(map(str, images.shape[:3]))} whole numbers or "
            f"booleans, got {_described(masks)}"
        )
    return images, labels, masks


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(part.file_size for part in packed.infolist())
        if size > MOST:
            raise InputError(f"expected at most {MOST} bytes unpacked, got {size}")
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in (IMAGES, LABELS, MASKS) if name in found}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror or 'damaged'}") from None
    except DAMAGED as error:
        raise InputError("expected a file of NumPy arrays, .npz, undamaged") from error


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} in [{', '.join(map(str, array.shape))}]"
