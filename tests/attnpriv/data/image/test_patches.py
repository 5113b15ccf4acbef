"""How images are cut, and which patches a box touches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attnpriv.boxes import Box
from attnpriv.data.image.patches import Patches
from attnpriv.errors import InputError


def drawn(height: int, width: int, channels: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(6, 9), (7, 10), (3, 2), (1, 11)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("patch", [1, 2, 3, 5])
def test_every_pixel_is_in_the_patch_whose_place_holds_it(
    height: int, width: int, channels: int, patch: int
) -> None:
    image = drawn(height, width, channels)
    (sample,) = Patches(height, width, channels, patch).read([image])
    assert sample.size == -(-height // patch) * -(-width // patch)
    seen = np.zeros((height, width), dtype=int)
    for (left, top, right, bottom), values, extent in zip(
        sample.places, sample.values, sample.extents, strict=True
    ):
        square = values.reshape(patch, patch, channels)
        inside = square[: bottom - top, : right - left]
        np.testing.assert_array_equal(inside, image[top:bottom, left:right] / np.float32(255))
        assert square.sum() == pytest.approx(inside.sum())  # the rest is black
        assert extent == inside.shape[0] * inside.shape[1]
        seen[top:bottom, left:right] += 1
    assert (seen == 1).all()


def test_a_patch_is_marked_if_it_shares_a_pixel_with_a_box() -> None:
    """Against counting pixels, for every box in a small image."""
    height, width, patch = 5, 7, 2
    (sample,) = Patches(height, width, 1, patch).read([drawn(height, width, 1)])
    for left, top in itertools.product(range(width), range(height)):
        for right, bottom in itertools.product(
            range(left + 1, width + 1), range(top + 1, height + 1)
        ):
            pixels = np.zeros((height, width), dtype=bool)
            pixels[top:bottom, left:right] = True
            expected = [pixels[t:b, le:r].any() for le, t, r, b in sample.places]
            assert sample.marks([Box(left, top, right, bottom, "FACE")]).tolist() == expected
    assert not sample.marks([]).any()


def test_marks_of_several_boxes_are_joined() -> None:
    (sample,) = Patches(4, 4, 1, 2).read([drawn(4, 4, 1)])
    boxes = [Box(0, 0, 1, 1, "A"), Box(3, 3, 4, 4, "B")]
    assert sample.marks(boxes).tolist() == [True, False, False, True]


def test_an_image_of_another_shape_is_refused() -> None:
    message = r"expected images of 9 × 6 grey pixels, got 9 × 6 colour pixels"
    with pytest.raises(InputError, match=message):
        Patches(6, 9, 1, 3).read([drawn(6, 9, 3)])


def test_a_batch_holds_all_patches_and_black_ones_beside() -> None:
    modality = Patches(4, 6, 3, 2)
    images = [drawn(4, 6, 3), np.zeros((4, 6, 3), dtype=np.uint8)]
    inputs = modality.collate(modality.read(images))
    assert inputs.values.shape == (2, 6, 12)
    assert inputs.mask.all()
    assert inputs.content.all()
    assert not inputs.blank.any()
    assert not inputs.values[1].any()
