"""Scenes: where digits stand, that each is used once, and what a detector learns of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attnpriv.data import load_dataset
from attnpriv.data.image.digits import make_digits
from attnpriv.data.image.scenes import Scenes, _scaled, make_scenes
from attnpriv.errors import InputError


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return make_scenes(rows=60)


def test_boxes_hold_one_digit_each_and_do_not_overlap(scenes: Scenes) -> None:
    assert scenes.pixels == (64, 64, 1)
    assert {len(found) for found in scenes.objects} == {1, 2, 3}
    for image, found in zip(scenes.images, scenes.objects, strict=True):
        left = image.copy()
        for box in found:
            inside = left[box.top : box.bottom, box.left : box.right, 0]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()  # the box is tight, and no other digit was taken out of it
            assert 14 <= box.bottom - box.top <= 28
            inside[:] = 0
        assert not left.any()


def test_each_scanned_digit_is_in_one_scene_at_most() -> None:
    """So that no digit is on both sides of a split, whichever it is."""
    scenes = make_scenes()
    assert sum(map(len, scenes.objects)) <= len(make_digits())
    assert sum(map(len, scenes.objects)) > 0.98 * len(make_digits())
    counted = np.bincount([int(b.entity_type) for own in scenes.objects for b in own])
    of_source = np.bincount(make_digits().labels)
    assert (counted <= of_source).all()


def test_some_digits_are_marked(scenes: Scenes) -> None:
    places = [[(b.left, b.top, b.right, b.bottom) for b in own] for own in scenes.objects]
    assert scenes.boxes is not None
    for own, marked in zip(places, scenes.boxes, strict=True):
        assert {(b.left, b.top, b.right, b.bottom) for b in marked} <= {*own}
    share = sum(map(len, scenes.boxes)) / sum(map(len, scenes.objects))
    assert 0.15 < share < 0.45


def test_targets_are_classes_and_boxes_as_shares(scenes: Scenes) -> None:
    targets = scenes.targets
    assert targets.shape == (60, 3, 5)
    for row, found in enumerate(scenes.objects):
        assert (targets[row, len(found) :] == -1).all()
        for target, box in zip(targets[row], found, strict=False):
            assert target[0] == int(box.entity_type)
            x, y, width, height = target[1:] * 64
            sides = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            assert sides == [box.left, box.top, box.right, box.bottom]


def test_scaling_keeps_the_corners_of_what_is_not_black() -> None:
    image = np.zeros((6, 6, 1), dtype=np.uint8)
    image[1:5, 2:4, 0] = [[10, 20], [30, 40], [50, 60], [70, 80]]
    scaled = _scaled(image, 8)
    assert scaled.shape == (8, 4)
    assert scaled[[0, 0, -1, -1], [0, -1, 0, -1]].tolist() == [10, 20, 70, 80]


def test_seeds_and_options() -> None:
    one, other = load_dataset("scenes:rows=5"), load_dataset("scenes:rows=5,seed=1")
    assert one.keys == make_scenes(rows=5).keys != other.keys
    fewer = one.subset([3, 1]).targets
    assert fewer.tolist() == one.targets[[3, 1], : fewer.shape[1]].tolist()
    assert one.fingerprint() != replace(one, objects=other.objects).fingerprint()
    with pytest.raises(InputError, match="expected objects among 1, got"):
        one.relabelled([0] * 5, ("1",))
    with pytest.raises(InputError, match="expected mnist=1 with test=1"):
        load_dataset("scenes:test=1")
    with pytest.raises(InputError, match=r"expected rows in \[2, 8\d\d\], got 9999"):
        load_dataset("scenes:rows=9999")
