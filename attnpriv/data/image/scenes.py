"""Scenes: handwritten digits on a black canvas of 64 × 64 pixels, each with its box.

Shapes: N scenes, M objects of the scene that has most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attnpriv.boxes import Box
from attnpriv.data.image.digits import BESIDE, make_digits, make_mnist
from attnpriv.data.image.records import Images, Pixels
from attnpriv.errors import InputError

SIDE = 64  # of a canvas, in pixels
HEIGHTS = 14, 28  # of a digit, from and up to
MOST = 3  # digits in a scene
TRIES = 30  # places that are tried for a digit, before it waits for the next scene
SENSITIVE = 0.3  # the chance of a digit to be marked

Scene = tuple[Pixels, tuple[Box, ...], tuple[Box, ...]]
"""A canvas, its objects, and what of it is sensitive."""


@dataclass(frozen=True, eq=False)
class Scenes(Images):
    """Images with the objects in them; see ``Dataset``.

    Attributes:
        objects: of each image, boxes that are named after their classes. ``labels`` are the
            classes of the first of them, and ``boxes`` mark those that are sensitive.
    """

    objects: tuple[tuple[Box, ...], ...] = ()

    @property
    def detects(self) -> bool:
        """Its models find objects."""
        return True

    @property
    def targets(self) -> NDArray[np.float32]:
        """As in ``attnpriv.detection``, [N, M, 5]."""
        height, width, _ = self.pixels
        most = max(1, *map(len, self.objects))
        targets = np.full((len(self), most, 5), -1, dtype=np.float32)
        for row, found in enumerate(self.objects):
            for number, box in enumerate(found):
                targets[row, number] = (
                    self.label_names.index(box.entity_type),
                    (box.left + box.right) / 2 / width,
                    (box.top + box.bottom) / 2 / height,
                    (box.right - box.left) / width,
                    (box.bottom - box.top) / height,
                )
        return targets

    def fingerprint(self) -> str:
        """As in ``Dataset``, over all objects, too."""
        plain = json.dumps([[astuple(box) for box in found] for found in self.objects])
        return hashlib.sha256(f"{super().fingerprint()} {plain}".encode()).hexdigest()

    def relabelled(self, labels: Sequence[int], label_names: Sequence[str]) -> Scenes:
        """As in ``Dataset``; the objects keep the names of their classes.

        Raises:
            InputError: an object's class is none of the names.
        """
        if missing := {b.entity_type for own in self.objects for b in own} - {*label_names}:
            raise InputError(
                f"expected objects among {', '.join(label_names)}, got {min(missing)!r}"
            )
        return replace(self, labels=tuple(labels), label_names=tuple(label_names))

    def subset(self, indices: Sequence[int]) -> Scenes:
        """As in ``Dataset``."""
        chosen: dict[str, Any] = {
            name: tuple(getattr(self, name)[i] for i in indices)
            for name in ("images", "labels", "objects")
        }
        boxes = None if self.boxes is None else tuple(self.boxes[i] for i in indices)
        return replace(self, **chosen, boxes=boxes)


def make_scenes(
    rows: int | None = None, seed: int = 0, mnist: bool = False, test: bool = False
) -> Scenes:
    """Scenes of 1 to 3 digits that do not overlap, of different sizes.

    Each scanned digit is in one scene at most, so that no digit is on both sides of a split. Three
    in ten are marked as sensitive, whatever they are.

    Args:
        rows: how many scenes; by default as many as the digits are enough for.
        seed: of sizes, places and marks.
        mnist: digits of MNIST in the place of those that come with scikit-learn.
        test: those that MNIST has for tests.

    Raises:
        InputError: there are too few digits, or ``test`` without ``mnist``, or as ``make_mnist``.
    """
    if test and not mnist:
        raise InputError("expected mnist=1 with test=1, which takes MNIST's digits for tests")
    source = make_mnist(test=test) if mnist else make_digits()
    rng = np.random.default_rng(seed)
    left = rng.permutation(len(source)).tolist()
    scenes: list[Scene] = []
    while len(left) >= MOST and (rows is None or len(scenes) < rows):
        scenes.append(_scene(source, left, rng))
    if len(scenes) < (rows or 2):
        raise InputError(f"expected rows in [2, {len(scenes)}], got {rows}")
    images, objects, boxes = zip(*scenes, strict=True)
    labels = tuple(source.label_names.index(found[0].entity_type) for found in objects)
    name = "scenes-test" if test else "scenes"
    return Scenes(name, images, labels, source.label_names, boxes, objects=objects)


def _scene(source: Images, left: list[int], rng: np.random.Generator) -> Scene:
    """A scene of the next digits of ``left``, which it takes away."""
    canvas = np.zeros((SIDE, SIDE, 1), dtype=np.uint8)
    objects: list[Box] = []
    marked: list[Box] = []
    for _ in range(rng.integers(1, MOST + 1)):
        digit = _scaled(source.images[left[-1]], int(rng.integers(HEIGHTS[0], HEIGHTS[1] + 1)))
        box = _place(digit.shape, objects, rng, source.label_names[source.labels[left[-1]]])
        if box is None:
            break
        left.pop()
        canvas[box.top : box.bottom, box.left : box.right, 0] = digit
        objects.append(box)
        if rng.random() < SENSITIVE:
            marked.append(replace(box, entity_type=BESIDE))
    return canvas, tuple(objects), tuple(marked)


def _scaled(image: Pixels, height: int) -> NDArray[np.uint8]:
    """What is not black of a digit, scaled to a height, its width in proportion."""
    ink = image[..., 0]
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    cut = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32)
    width = min(HEIGHTS[1], max(2, round(cut.shape[1] * height / cut.shape[0])))
    scaled = _between(height, len(cut)) @ cut @ _between(width, cut.shape[1]).T
    digit: NDArray[np.uint8] = scaled.round().clip(0, 255).astype(np.uint8)
    return digit


def _between(wanted: int, given: int) -> NDArray[np.float32]:
    """Weights of linear interpolation from so many values to so many, [wanted, given]."""
    at = np.linspace(0, given - 1, wanted)
    return np.maximum(0, 1 - abs(at[:, None] - np.arange(given))).astype(np.float32)


def _place(
    size: tuple[int, ...], others: Sequence[Box], rng: np.random.Generator, name: str
) -> Box | None:
    """Where a digit overlaps no other, if such a place is found."""
    height, width = size
    for _ in range(TRIES):
        top, left = (int(rng.integers(0, SIDE - length + 1)) for length in size)
        box = Box(left, top, left + width, top + height, name)
        if not any(_overlap(box, other) for other in others):
            return box
    return None


def _overlap(a: Box, b: Box) -> bool:
    across = a.left < b.right and b.left < a.right
    return across and a.top < b.bottom and b.top < a.bottom
