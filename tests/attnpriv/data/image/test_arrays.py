"""Images in NPZ files, and masks of sensitive pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnpriv.boxes import Box
from attnpriv.data import load_dataset
from attnpriv.data.image import arrays
from attnpriv.data.image.masks import MARKED, boxes_of
from attnpriv.data.image.patches import Patches
from attnpriv.data.image.records import Images
from attnpriv.errors import InputError
from tests.images import encoded

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (4, 5, 7), dtype=np.uint8)
LABELS = np.array([3, 1, 3, 1])
ELL = np.zeros((5, 7), dtype=np.uint8)
ELL[1:4, 2] = 255
ELL[3, 2:6] = 1


def write(path: Path, **values: Any) -> str:
    np.savez_compressed(path, **values)
    return str(path)


def covered(boxes: tuple[Box, ...], shape: tuple[int, int]) -> np.ndarray:
    counts = np.zeros(shape, dtype=int)
    for box in boxes:
        counts[box.top : box.bottom, box.left : box.right] += 1
    return counts


def test_a_mask_becomes_boxes_of_its_pixels_and_no_others() -> None:
    assert boxes_of(ELL) == (Box(2, 1, 3, 3, MARKED), Box(2, 3, 6, 4, MARKED))
    assert boxes_of(np.zeros((5, 7))) == ()
    assert boxes_of(np.ones((5, 7))) == (Box(0, 0, 7, 5, MARKED),)
    for _ in range(20):
        mask = RNG.random((9, 11)) < RNG.random()
        np.testing.assert_array_equal(covered(boxes_of(mask), mask.shape), mask)


def test_patches_are_marked_as_by_the_mask_itself() -> None:
    patches = Patches(9, 11, 1, 2)
    (sample,) = patches.read([np.zeros((9, 11, 1), np.uint8)])
    mask = RNG.random((9, 11)) < 0.1
    expected = [mask[top:bottom, left:right].any() for left, top, right, bottom in patches.places]
    assert sample.marks(boxes_of(mask)).tolist() == expected


def test_arrays_are_read(tmp_path: Path) -> None:
    masks = np.stack([ELL, ELL * 0, ELL, ELL])
    data = load_dataset(write(tmp_path / "few.npz", images=GREY, labels=LABELS, masks=masks))
    assert isinstance(data, Images)
    assert (data.name, data.label_names, data.labels) == ("few", ("1", "3"), (1, 0, 1, 0))
    np.testing.assert_array_equal(np.stack(data.images)[..., 0], GREY)
    assert [len(own) for own in data.boxes or ()] == [2, 0, 2, 2]
    colour = np.repeat(GREY[..., None], 3, 3)
    named = write(tmp_path / "colour.npz", images=colour, labels=np.array([*"abab"]))
    read = load_dataset(named, label_names=("b", "a"))
    assert (read.pixels, read.labels, read.regions) == ((5, 7, 3), (1, 0, 1, 0), None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"images": GREY}, "expected arrays images and labels, got images"),
        ({"images": GREY / 255, "labels": LABELS}, r"of bytes in .*, got float64 in \[4, 5, 7\]"),
        ({"images": GREY[0], "labels": LABELS}, r"of bytes in .*, got uint8 in \[5, 7\]"),
        ({"images": GREY[..., None].repeat(4, 3), "labels": LABELS}, "1 or 3 channels, got 4"),
        ({"images": GREY, "labels": LABELS[:3]}, r"expected 4 labels, .*, got int64 in \[3\]"),
        ({"images": GREY, "labels": LABELS / 2}, "expected 4 labels, whole numbers or strings"),
        ({"images": GREY, "labels": LABELS, "masks": GREY[:, 1:]}, "expected masks of 4 × 5 × 7"),
        ({"images": GREY, "labels": LABELS.astype(object)}, "expected a file of NumPy arrays"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(write(tmp_path / "bad.npz", **values))


def test_damaged_missing_and_large_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    whole = Path(write(path, images=GREY, labels=LABELS)).read_bytes()
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:60] + b"xxxx" + whole[64:]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected a file of NumPy arrays, .npz, undamaged"):
            load_dataset(str(path))
    with pytest.raises(InputError, match="cannot read it: No such file or directory"):
        load_dataset(str(tmp_path / "none.npz"))
    path.write_bytes(whole)
    monkeypatch.setattr(arrays, "MOST", 100)
    with pytest.raises(InputError, match="expected at most 100 bytes unpacked, got"):
        load_dataset(str(path))


def folder(tmp_path: Path, table: str) -> str:
    for name, pixels in (("a.png", GREY[0]), ("b.png", GREY[1]), ("m.png", ELL)):
        (tmp_path / name).write_bytes(encoded(pixels))
    (tmp_path / "wide.png").write_bytes(encoded(GREY[0][:4]))
    (tmp_path / "labels.csv").write_text(table)
    return str(tmp_path)


def test_a_folder_may_name_masks(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path, "file,label,mask\na.png,x,m.png\nb.png,y,\n"))
    assert data.regions == (boxes_of(ELL), ())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label,mask\na.png,x,wide.png\n", "row 2: expected a mask of 7 × 5 pixels, got 7 ×"),
        ("file,label,mask\na.png,x,../m.png\n", "row 2: expected a file inside the folder"),
        ("file,label,mask,boxes\na.png,x,,\n", "expected boxes or mask, got both columns"),
    ],
)
def test_bad_masks_are_refused(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(folder(tmp_path, table))
