"""The built-in images: what is in them, and what their options do."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from attnpriv.boxes import Box
from attnpriv.data import load_dataset, save_dataset
from attnpriv.data.image.digits import make_digits
from attnpriv.data.image.records import Images
from attnpriv.errors import InputError


def test_digits_are_those_of_scikit_learn() -> None:
    data, source = load_dataset("digits"), load_digits()
    assert isinstance(data, Images)
    assert data.pixels == (8, 8, 1)
    assert data.kind == "image"
    assert data.regions is None
    assert [data.label_names[label] for label in data.labels] == list(map(str, source.target))
    scaled = np.stack(data.images)[..., 0] * (16 / 255)
    np.testing.assert_allclose(scaled, source.images, atol=0.5 * 16 / 255)


def test_pairs_show_each_scanned_digit_once_and_mark_the_right_one() -> None:
    pairs = make_digits(beside=True)
    assert len(pairs) == 898
    assert pairs.pixels == (8, 16, 1)
    assert set(pairs.boxes or ()) == {(Box(8, 0, 16, 8, "DIGIT"),)}
    classes = dict(zip(*_singles(), strict=True))
    halves = [_key(half) for image in pairs.images for half in (image[:, :8], image[:, 8:])]
    assert len(set(halves)) == len(halves) == 2 * 898
    assert list(pairs.labels) == [classes[key] for key in halves[::2]]
    tied = make_digits(beside=True, tie=True)
    assert [_key(image) for image in tied.images] == [_key(image) for image in pairs.images]
    assert list(tied.labels) == [classes[key] for key in halves[1::2]]


def _singles() -> tuple[list[bytes], list[int]]:
    data = make_digits()
    return [_key(image) for image in data.images], list(data.labels)


def _key(image: np.ndarray) -> bytes:
    return np.ascontiguousarray(image).tobytes()


def test_options_choose_rows_and_pairs() -> None:
    assert load_dataset("digits:rows=50").keys == load_dataset("digits").keys[:50]
    first, second = (load_dataset(f"digits:rows=9,beside=1,seed={seed}").keys for seed in (0, 1))
    assert first != second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("rows=1", r"rows in \[2, 1797\], got 1"),
        ("rows=899,beside=1", r"rows in \[2, 898\], got 899"),
        ("tie=1", "expected beside=1 with tie=1"),
        ("beside=2", "options of digits such as .*, got 'beside=2'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(f"digits:{options}")


def test_a_run_of_texts_refuses_images() -> None:
    with pytest.raises(InputError, match="expected texts, got digits, which holds images"):
        load_dataset("digits:rows=5", kind="text")
    with pytest.raises(InputError, match="expected images, got tickets, which holds texts"):
        load_dataset("tickets:rows=5", kind="image")


def test_images_are_not_written_as_texts(tmp_path) -> None:
    with pytest.raises(InputError, match="expected texts to write, got digits"):
        save_dataset(load_dataset("digits:rows=5"), tmp_path / "digits.csv")


def test_copies_of_an_image_have_one_key_and_others_have_not() -> None:
    data = make_digits(5)
    rest = (data.labels, data.label_names)
    again = Images(
        "again", (data.images[0].copy(), *data.images[1:]), data.labels, data.label_names
    )
    assert again.keys == data.keys
    assert again.fingerprint() == data.fingerprint()
    flipped = Images("flipped", (data.images[0] ^ 1, *data.images[1:]), *rest)
    assert flipped.keys[0] != data.keys[0]
    assert flipped.fingerprint() != data.fingerprint()
    square, line = (np.zeros(shape, dtype=np.uint8) for shape in ((2, 2, 1), (1, 4, 1)))
    keys = [Images("k", (image,), (0,), ("a",)).keys for image in (square, line)]
    assert keys[0] != keys[1]


def test_images_of_several_sizes_are_refused() -> None:
    images = (np.zeros((2, 3, 1), dtype=np.uint8), np.zeros((2, 4, 1), dtype=np.uint8))
    with pytest.raises(
        InputError, match="one size, 3 × 2 grey pixels, got 4 × 2 grey pixels in row 1"
    ):
        Images("made", images, (0, 0), ("a", "b"))
