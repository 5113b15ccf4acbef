"""Masks of sensitive pixels, as the boxes that cover these pixels and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnpriv.boxes import Box

MARKED = "MASK"  # the type of what a mask marks


def boxes_of(mask: NDArray[Any]) -> tuple[Box, ...]:
    """Boxes that do not overlap, whose pixels are those of a mask [H, W] that are not 0.

    Each is as high as a run of marked pixels stays the same from row to row. A patch is marked by
    them if and only if it shares a pixel with the mask.
    """
    boxes: list[Box] = []
    begun: dict[tuple[int, int], int] = {}  # where the runs of the row before have begun
    for row, marked in enumerate([*(mask != 0), np.zeros(mask.shape[1], np.bool_)]):
        edges = np.flatnonzero(np.diff(marked, prepend=False, append=False)).tolist()
        runs = {*zip(edges[::2], edges[1::2], strict=True)}
        ended = sorted(begun.keys() - runs)
        boxes += [Box(left, begun[left, right], right, row, MARKED) for left, right in ended]
        begun = {run: begun.get(run, row) for run in runs}
    return tuple(boxes)
