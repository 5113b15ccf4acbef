"""Rectangles of personal data in an image, and the form in which files give them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attnpriv.errors import InputError

SIDES = ("left", "top", "right", "bottom")


@dataclass(frozen=True, slots=True)
class Box:
    """A part of an image that is personal data of one type.

    It holds the pixels from ``left`` and ``top`` up to, and without, ``right`` and ``bottom``.
    """

    left: int
    top: int
    right: int
    bottom: int
    entity_type: str


def read_boxes(cell: object, width: int, height: int) -> tuple[Box, ...]:
    """Read the boxes of an image from a list or from JSON; duplicates count once.

    Args:
        cell: a list of ``{"left", "top", "right", "bottom", "entity_type"}`` in pixels, or the same
            as a string of JSON. An empty string means none.
        width: of the image, in pixels.
        height: likewise.

    Raises:
        InputError: the cell has another form, or a box is not inside the image.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell or "[]")
        except (ValueError, RecursionError):
            raise InputError("the boxes are not JSON") from None
    if not isinstance(cell, list):
        raise InputError(f"expected a list of boxes, each with {', '.join(SIDES)} and entity_type")
    return tuple(dict.fromkeys(_read_box(item, width, height) for item in cell))


def _read_box(item: object, width: int, height: int) -> Box:
    match item:
        case {
            "left": int(left),
            "top": int(top),
            "right": int(right),
            "bottom": int(bottom),
            "entity_type": str(entity_type),
        } if entity_type and bool not in map(type, (left, top, right, bottom)):
            if 0 <= left < right <= width and 0 <= top < bottom <= height:
                return Box(left, top, right, bottom, entity_type)
            raise InputError(
                f"expected boxes with 0 <= left < right <= {width} and 0 <= top < bottom <= "
                f"{height}, got {left}, {top}, {right}, {bottom}"
            )
    raise InputError(
        f"expected boxes with whole numbers as {', '.join(SIDES)}, and a name as entity_type"
    )
