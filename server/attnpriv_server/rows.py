"""What a model is asked about, and how, for processes that have PyTorch and for those without."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Row = Sequence[int] | NDArray[np.float32]
"""One record: the ids of a text, or the patches of an image [T, P]."""


class ImageRefusedError(Exception):
    """A file is not an image that the model reads.

    Attributes:
        index: which of the files, from 0.
        reason: what was expected, in words that quote nothing of it.
    """

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index, self.reason = index, reason


def flat(rows: Sequence[Row]) -> NDArray[np.generic]:
    """What stands at all positions of records of one kind, in a row: ids [N] or patches [N, P]."""
    if isinstance(rows[0], np.ndarray):
        return np.concatenate(rows)
    return np.fromiter(chain.from_iterable(rows), np.int32, sum(map(len, rows)))
