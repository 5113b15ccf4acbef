"""Images for the command: from files, and the regions that its options mark in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from attnpriv.errors import InputError
from attnpriv_client.client import Client
from attnpriv_client.domain import Image, Prediction, SensitiveBox
from attnpriv_client.errors import InvalidRequestError

MOST_BYTES = 3 * 2**20  # what is larger does not fit into a message

_BOX = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9}):(\d{1,9}):(.+)")

Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        help="LEFT:TOP:RIGHT:BOTTOM:TYPE of personal data that you know to be in each --image, "
        "such as 0:0:8:8:FACE, counted in pixels from the upper left corner; can be repeated. The "
        "server hides it wherever its policy hides anything, and finds nothing in images itself.",
    ),
]


def read_image(path: Path, regions: Sequence[str] | None) -> Image:
    """An image from a file; its name, which can tell whom it shows, stays here.

    Raises:
        InputError: the file cannot be read or is too large, or a region has another form.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"expected at most {MOST_BYTES} bytes in {path}, got more")
    return Image(content, tuple(map(_box, regions or ())))


def predict_files(
    client: Client,
    model: str,
    paths: Sequence[Path],
    regions: Sequence[str] | None,
    version: str | None,
) -> list[Prediction]:
    """The labels of images, one call each.

    Raises:
        InputError: as ``read_image``, or the server refuses one of them.
    """
    answers: list[Prediction] = []
    for path in paths:
        try:
            answers += client.predict_images(model, [read_image(path, regions)], version)
        except InvalidRequestError as error:
            raise InputError(f"{path}: {error}") from None
    return answers


def _box(option: str) -> SensitiveBox:
    found = _BOX.fullmatch(option)
    if found is None:
        raise InputError(f"expected --region LEFT:TOP:RIGHT:BOTTOM:TYPE, got {option!r}")
    left, top, right, bottom = (int(found[number]) for number in range(1, 5))
    return SensitiveBox(left, top, right, bottom, found[5])
