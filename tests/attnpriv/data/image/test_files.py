"""Images from files: what is read of good ones, and that bad ones are refused in one sentence."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attnpriv.boxes import Box, read_boxes
from attnpriv.data import load_dataset
from attnpriv.data.image import decoding
from attnpriv.data.image.decoding import decode
from attnpriv.data.image.records import Images
from attnpriv.errors import InputError
from tests.images import animated, bomb, encoded, many_scans

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def test_png_gives_its_pixels_and_jpeg_nearly() -> None:
    np.testing.assert_array_equal(decode(encoded(COLOUR)), COLOUR)
    np.testing.assert_array_equal(decode(encoded(GREY)), GREY[..., None])
    smooth = np.linspace(0, 255, 35).reshape(5, 7).astype(np.uint8)
    near = decode(encoded(smooth, "JPEG", quality=95))
    assert np.abs(near[..., 0].astype(int) - smooth).max() < 12


def test_what_is_transparent_is_black() -> None:
    alpha = np.zeros((5, 7, 1), dtype=np.uint8)
    alpha[2:] = 255
    decoded = decode(encoded(np.concatenate([COLOUR, alpha], axis=2)))
    assert not decoded[:2].any()
    np.testing.assert_array_equal(decoded[2:], COLOUR[2:])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a PNG or JPEG image"),
        (b"GIF89a" + bytes(50), "expected a PNG or JPEG image"),
        (encoded(COLOUR, "BMP"), "expected a PNG or JPEG image"),
        (bomb(60_000, 60_000), "pixels, got 60000 × 60000|expected a PNG or JPEG image"),
        (bomb(2049, 2049), "expected at most 4194304 pixels, got 2049 × 2049"),
        (bomb(100, 100), "whole and undamaged"),
        (animated(COLOUR), "expected an image of one frame, got 2"),
        (encoded(GREY.astype(np.uint16) * 256), "8 bits a channel"),
        (encoded(COLOUR) + bytes(decoding.MAX_BYTES), "expected an image of at most"),
        (many_scans(GREY, 100), "expected a JPEG of at most 100 scans, got 106"),
    ],
    ids=["empty", "gif", "bmp", "bomb", "large", "short", "frames", "wide", "bytes", "scans"],
)
def test_what_is_no_image_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        decode(content)


def test_another_shape_than_is_wanted_is_refused_and_grey_becomes_colour() -> None:
    np.testing.assert_array_equal(decode(encoded(GREY), (5, 7, 1)), GREY[..., None])
    colour = decode(encoded(GREY), (5, 7, 3))
    np.testing.assert_array_equal(colour, np.repeat(GREY[..., None], 3, 2))
    with pytest.raises(InputError, match="expected an image of 5 × 7 colour pixels, got 7 × 5 col"):
        decode(encoded(COLOUR), (7, 5, 3))
    with pytest.raises(
        InputError, match="expected an image of 7 × 5 grey pixels, got 7 × 5 colour"
    ):
        decode(encoded(COLOUR), (5, 7, 1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_file_that_is_cut_off_is_refused(kind: str) -> None:
    """Only what follows the last pixel may be missing."""
    whole = encoded(RNG.integers(0, 256, (16, 16, 3), dtype=np.uint8), kind)
    for length in range(0, len(whole) - 40, 13):
        with pytest.raises(InputError, match="whole and undamaged"):
            decode(whole[:length])


@settings(max_examples=150)
@given(
    st.sampled_from(["PNG", "JPEG"]),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=8),
)
def test_damaged_bytes_give_pixels_or_an_input_error(kind: str, changes: list[Any]) -> None:
    content = bytearray(encoded(COLOUR, kind))
    for place, value in changes:
        content[place % len(content)] = value
    with suppress(InputError):
        assert decode(bytes(content)).dtype == np.uint8


def write(folder: Path, rows: list[tuple[str, ...]], header: str = "file,label,boxes") -> Path:
    folder.mkdir(exist_ok=True)
    for name, pixels in (("a.png", COLOUR), ("b.png", GREY), ("sub/c.jpg", COLOUR)):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(pixels, "JPEG" if name.endswith("jpg") else "PNG"))
    lines = [",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in rows]
    (folder / "labels.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder


FACE = json.dumps([{"left": 1, "top": 0, "right": 3, "bottom": 2, "entity_type": "FACE"}])
ROWS = [
    ("a.png", "cat", FACE),
    ("b.png", "dog", ""),
    ("sub/c.jpg", "cat", "[]"),
    ("a.png", "dog", ""),
]


def test_a_folder_gives_images_labels_and_boxes(tmp_path: Path) -> None:
    data = load_dataset(str(write(tmp_path / "pets", ROWS)))
    assert isinstance(data, Images)
    assert (data.name, data.pixels) == ("pets", (5, 7, 3))
    assert [data.label_names[label] for label in data.labels] == ["cat", "dog", "cat", "dog"]
    np.testing.assert_array_equal(data.images[0], COLOUR)
    np.testing.assert_array_equal(data.images[1], np.repeat(GREY[..., None], 3, 2))
    assert data.boxes == ((Box(1, 0, 3, 2, "FACE"),), (), (), ())
    assert data.data_dependent == ("the names of the classes",)
    known = load_dataset(str(tmp_path / "pets"), label_names=("dog", "cat"))
    assert known.labels == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("none.png", "cat", ""), "row 6: the image does not exist"),
        (("../out.png", "cat", ""), "row 6: expected a file inside the folder"),
        (("/etc/passwd", "cat", ""), "row 6: expected a file inside the folder"),
        (("labels.csv", "cat", ""), "row 6: expected a PNG or JPEG image"),
        (("link.png", "cat", ""), "row 6: expected a file inside the folder"),
        (("a.png", "", ""), "row 6: the label is missing"),
        (("a.png", "cat", "{"), "row 6: the boxes are not JSON"),
        (("a.png", "cat", FACE.replace("3", "8")), "row 6: expected boxes with 0 <= left"),
        (("large.png", "cat", ""), "expected images of one size"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(
    tmp_path: Path, row: tuple[str, ...], message: str
) -> None:
    (tmp_path / "out.png").write_bytes(encoded(COLOUR))
    folder = write(tmp_path / "pets", [*ROWS, row])
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "large.png").write_bytes(encoded(np.zeros((6, 7, 3), dtype=np.uint8)))
    with pytest.raises(InputError, match=message):
        load_dataset(str(folder))


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", [("a.png", "cat", "")], header="image,label,boxes")
    with pytest.raises(InputError, match="expected a header with one column file, got 0"):
        load_dataset(str(folder))
    with pytest.raises(InputError, match="expected no text column with a folder of images"):
        load_dataset(str(folder), text_column="image")


@pytest.mark.parametrize(
    "cell", ["3", [3], [{"left": 0}], [{**json.loads(FACE)[0], "left": True}], "[[[["]
)
def test_boxes_of_another_form_are_refused(cell: object) -> None:
    with pytest.raises(InputError, match="boxes"):
        read_boxes(cell, 7, 5)
