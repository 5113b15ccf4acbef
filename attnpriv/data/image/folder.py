"""A folder of PNG and JPEG files beside a table that labels them.

The table is ``labels.csv`` in the folder, with a header. Its columns are ``file``, the path of an
image inside the folder; ``label``; and, where sensitive regions are marked, ``boxes``, a JSON list
of ``{"left", "top", "right", "bottom", "entity_type"}`` in pixels, or ``mask``, the path of another
image of the same size, which is not black where something is sensitive, or nothing. Errors name the
row, never what an image shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attnpriv.boxes import Box, read_boxes
from attnpriv.data.image.decoding import MAX_BYTES, decode
from attnpriv.data.image.masks import boxes_of
from attnpriv.data.image.records import Images, Pixels
from attnpriv.data.labels import choose_classes, number_labels
from attnpriv.data.tables import Table, read_table
from attnpriv.errors import InputError
from attnpriv.labels import label_name

TABLE = "labels.csv"
FILE, LABEL, BOXES, MASK = "file", "label", "boxes", "mask"


def read_folder(
    folder: Path, *, label_names: Sequence[str] | None = None, classes: int | None = None
) -> Images:
    """Read labelled images.

    Grey images become colour where others are. All must be of one size.

    Args:
        folder: with the files and their table.
        label_names: the classes of a trained model. None takes the distinct labels, sorted.
        classes: the number of classes, which confirms names that do not look like classes.

    Raises:
        InputError: whatever is wrong with the table, a file or the set of labels.
    """
    path = folder / TABLE
    table = read_table(path).with_header()
    try:
        columns, marked = _columns(table)
        images, labels, boxes = [], [], []
        for number, cells in enumerate(zip(*columns, strict=True), table.first_row):
            try:
                image = _read_image(folder, str(cells[0]))
                labels.append(label_name(cells[1]))
                boxes.append(_regions(folder, cells[2:], image, marked))
            except InputError as error:
                raise InputError(f"row {number}: {error}") from None
            images.append(image)
        data = Images(
            name=folder.resolve().name,
            images=_of_one_kind(images),
            labels=(0,) * len(images),
            label_names=("",),
            boxes=tuple(boxes) if marked else None,
            data_dependent=() if label_names else ("the names of the classes",),
        )
        names = tuple(label_names or ()) or choose_classes(
            labels, data.keys, first_row=table.first_row, has_header=True, confirmed=classes
        )
        return data.relabelled(number_labels(labels, names, table.first_row, True), names)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _columns(table: Table) -> tuple[list[Sequence[str]], str | None]:
    """The files, the labels and, if there are any, the boxes or masks, and which they are."""
    names = [name.strip().lower() for name in table.names or ()]
    for name in (FILE, LABEL):
        if names.count(name) != 1:
            raise InputError(
                f"expected a header with one column {name}, got {names.count(name)} of them"
            )
    if table.rows < 1:
        raise InputError("expected at least one row of data, got 0")
    marks = [name for name in (BOXES, MASK) if name in names]
    if len(marks) > 1:
        raise InputError(f"expected {BOXES} or {MASK}, got both columns")
    columns = [table.columns[names.index(name)] for name in (FILE, LABEL, *marks)]
    return columns, marks[0] if marks else None


def _read_image(folder: Path, name: str) -> Pixels:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError("expected a file inside the folder")
    if not path.is_file():
        raise InputError("the image does not exist, or is no regular file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the image: {error.strerror}") from None
    return decode(content)


def _regions(
    folder: Path, cells: Sequence[str], image: Pixels, marked: str | None
) -> tuple[Box, ...]:
    height, width, _ = image.shape
    if marked == BOXES:
        return read_boxes(cells[0], width, height)
    if marked is None or not str(cells[0]).strip():
        return ()
    mask = _read_image(folder, str(cells[0]))
    if mask.shape[:2] != (height, width):
        raise InputError(
            f"expected a mask of {width} × {height} pixels, got {mask.shape[1]} × {mask.shape[0]}"
        )
    return boxes_of(mask.max(2))


def _of_one_kind(images: Sequence[Pixels]) -> tuple[Pixels, ...]:
    channels = max(image.shape[2] for image in images)
    return tuple(
        image if image.shape[2] == channels else np.repeat(image, channels, 2) for image in images
    )
