"""Swapped regions of images: what is put where, and what a model makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from attnpriv.audit.counterfactual import CounterfactualResult, measure_counterfactuals
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.regions import RegionSwapper
from attnpriv.boxes import Box
from attnpriv.data import load_dataset
from attnpriv.data.image.patches import Patches
from attnpriv.data.image.records import Images

SETTINGS: dict[str, Any] = {"most": 40, "permutations": 199, "resamples": 20, "seed": 0}
FACE = Box(3, 2, 6, 5, "FACE")  # on no border of the patches of 2 × 2 pixels
SIZE = (7, 11)


def made(count: int, boxes: tuple[tuple[Box, ...], ...], fill: int | None = None) -> Documents:
    """Random images of 11 × 7 pixels, or all of one grey."""
    rng = np.random.default_rng(0)
    pixels = [
        rng.integers(1, 256, (*SIZE, 1), dtype=np.uint8)
        if fill is None
        else np.full((*SIZE, 1), fill, dtype=np.uint8)
        for _ in range(count)
    ]
    data = Images("made", tuple(pixels), (0,) * count, ("a", "b"), boxes)
    return prepare(Patches(*SIZE, 1, 2), data, boxes)


def pixels_of(documents: Documents, values: Tensor) -> np.ndarray:
    """Patches [T, P] as pixels [H, W], from 0 to 255."""
    patches: Patches = documents.modality
    rows, columns = patches.grid
    grid = values.reshape(rows, columns, 2, 2).transpose(1, 2).reshape(rows * 2, columns * 2)
    return (grid[: SIZE[0], : SIZE[1]] * 255).round().numpy()


def test_nothing_but_the_region_or_the_area_for_the_null_changes() -> None:
    documents = made(5, ((FACE,),) * 5)
    swapper = RegionSwapper(documents, ((FACE,),) * 5, seed=0)
    images = [image[..., 0].astype(float) for image in documents.data.records]
    (case,) = swapper.cases(2)
    assert (case.document, case.entity_type) == (2, "FACE")
    swapped, black, null, null_black = (pixels_of(documents, each) for each in case.values)

    region = np.zeros(SIZE, dtype=np.bool_)
    region[2:5, 3:6] = True
    assert (swapped == images[2])[~region].all()
    others = [image[region] for d, image in enumerate(images) if d != 2]
    assert any((swapped[region] == other).all() for other in others)
    assert (black == np.where(region, 0, images[2])).all()

    area = null_black == 0
    assert area.sum() == region.sum()
    rows, columns = np.flatnonzero(area.any(1)), np.flatnonzero(area.any(0))
    assert (len(rows), len(columns)) == (3, 3)
    assert not documents.sensitive[2][
        documents.samples[2].marks([Box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1, "")])
    ].any()
    assert (null == images[2])[~area].all()
    assert any((null[area] == image[area]).all() for d, image in enumerate(images) if d != 2)
    # The same seed makes the same case.
    (again,) = RegionSwapper(documents, ((FACE,),) * 5, seed=0).cases(2)
    assert torch.equal(case.values, again.values)


@pytest.mark.parametrize(
    ("boxes", "fill"),
    [
        (((FACE,), (replace(FACE, right=7),)), None),  # another size
        (((FACE,), (replace(FACE, entity_type="PLATE"),)), None),
        (((FACE,), ()), None),  # nobody else
        (((FACE,), (FACE,)), 9),  # the same content everywhere
        (((Box(0, 0, 9, 7, "FACE"),),) * 2, None),  # no room for the null
        (
            ((FACE,), (FACE, Box(0, 0, 3, 7, "A"), Box(6, 0, 11, 7, "A"))),
            None,
        ),  # none free
    ],
)
def test_a_region_without_a_replacement_is_left_out_and_counted(
    boxes: tuple[tuple[Box, ...], ...], fill: int | None
) -> None:
    documents = made(2, boxes, fill)
    assert not [*RegionSwapper(documents, boxes, seed=0).cases(0)]
    result = measure_counterfactuals(_run(lambda values: values[..., :1, 0]), documents, boxes,
                                     **SETTINGS)  # fmt: skip
    faces = {each.entity_type: each for each in result.types}["FACE"]
    assert faces.entities == 0
    assert faces.left_out == sum(box.entity_type == "FACE" for own in boxes for box in own)
    assert not result.valid


def _run(score: Callable[[Tensor], Tensor]) -> Any:
    """A model of two classes whose logits are a score [N, 1] and its opposite."""

    def answer(values: Tensor, mask: Tensor) -> Tensor:
        found = score(values)
        return torch.cat([found, -found], dim=-1)

    return SimpleNamespace(model=answer)


def swaps(of_sensitive: bool) -> CounterfactualResult:
    """Pairs of digits, read by the sum of the pixels of one of them."""
    data = load_dataset("digits:rows=30,beside=1")
    documents = prepare(Patches(8, 16, 1, 2), data, data.regions)
    chosen = torch.from_numpy(documents.sensitive[0] == of_sensitive)

    def score(values: Tensor) -> Tensor:
        return (values.sum(-1) * chosen).sum(-1, keepdim=True) / 20 - 0.9

    return measure_counterfactuals(_run(score), documents, data.regions, **SETTINGS)


def test_a_model_of_the_region_alone_is_flagged() -> None:
    result = swaps(of_sensitive=True)
    assert (result.valid, result.of_images) == (True, True)
    assert [each.entity_type for each in result.types] == ["DIGIT"]
    assert result.overall.entities == 30
    assert result.overall.flagged
    assert result.types[0].flagged
    assert result.overall.swap.change.low > 0
    assert result.overall.swap_null.change.value == 0
    assert result.overall.mask.change.low > 0
    assert result.overall.mask_null.change.value == 0


def test_a_model_of_the_rest_alone_is_not_flagged_and_does_not_move() -> None:
    result = swaps(of_sensitive=False)
    assert result.valid
    assert not result.overall.flagged
    assert result.overall.swap.change.value == result.overall.mask.change.value == 0
    assert result.overall.swap_null.change.low > 0
