"""The detector: the embedded example to the bit, its certificate, its shape as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attnpriv.certificate import certify
from attnpriv.config import AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.detection import DETECT
from attnpriv.errors import InputError
from attnpriv.modality import Inputs, embed
from attnpriv.models.building import build_model, matrix_weights
from attnpriv.models.detector import DetectorModel
from attnpriv.models.shapes import DetectorConfig, read_shape

TINY = DetectorConfig(
    height=64,
    width=64,
    channels=1,
    patch=8,
    num_labels=10,
    dim=12,
    heads=3,
    hidden_dim=7,
    groups=3,
    attention=AttentionConfig(clip=1.0),
)


def make() -> DetectorModel:
    torch.manual_seed(0)
    return DetectorModel(TINY).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_dataset("scenes:rows=5")
    return TINY.patches.collate(TINY.patches.read(data.records))


def test_the_baseline_in_the_place_of_an_embedding_is_a_black_patch(inputs: Inputs) -> None:
    model = make()
    example = embed(model, inputs)
    removed = torch.rand(len(inputs.mask), 64, generator=torch.Generator().manual_seed(0)) < 0.5
    blackened = torch.where(removed[..., None], 0, inputs.values)
    x = example.without(torch.arange(len(removed)), removed)
    assert torch.equal(x, model.embed(blackened))
    assert torch.equal(model.run(x, inputs.mask).outputs, model(blackened, inputs.mask))


def test_an_image_is_computed_by_itself(inputs: Inputs) -> None:
    model = make()
    together = model(inputs.values, inputs.mask)
    assert together.shape == (5, 16, 15)
    assert model.task is DETECT
    alone = torch.cat([model(inputs.values[[i]], inputs.mask[[i]]) for i in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_all_attention_is_hardened(inputs: Inputs) -> None:
    """That of the cells, that among queries, and that of queries to cells."""
    model = make()
    bounds = certify(model, TINY.keys, 2)
    assert [each.module for each in bounds[:: TINY.heads]] == [
        "blocks.0.attention.core",
        "decoder.0.among.core",
        "decoder.0.cross.core",
    ]
    assert all(each.logit_bound == 1.0 for each in bounds)
    seen: list[torch.Tensor] = []
    cross = model.decoder[0].cross
    cells = torch.randn(2, 16, 12) * 100
    _, weights = cross(cells, cells, None, need_weights=True)
    seen.append(weights)
    assert weights.max() <= bounds[-1].largest_weight * (1 + 1e-6)
    maps = model.run(model.embed(inputs.values), inputs.mask, need_maps=True).self_attention()
    assert [each.shape for each in maps] == [(5, 3, 16, 16)]


def test_untrained_boxes_are_around_their_cells(inputs: Inputs) -> None:
    model = make()
    nn.init.zeros_(model.head.linear.weight)
    boxes = model(inputs.values, inputs.mask)[0, :, -4:]
    assert boxes[0].tolist() == pytest.approx([1 / 8, 1 / 8, 0.3, 0.3])
    assert boxes[6].tolist() == pytest.approx([5 / 8, 3 / 8, 0.3, 0.3])


def test_shapes_survive_json_and_give_the_same_model() -> None:
    again = read_shape(json.loads(json.dumps(TINY.to_dict())))
    assert again == TINY
    model = build_model(again)
    assert isinstance(model, DetectorModel)
    held = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert 0 < matrix_weights(TINY) <= held


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 5}, "expected dim to be divisible by 5, got 12"),
        ({"groups": 4}, "expected dim to be divisible by 8, got 12"),
        ({"pooling": "mean"}, "expected pooling places with detector, got 'mean'"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


def test_parts_that_it_does_not_have_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="expected trainable head or all with detector"):
        make().select_trainable("last:1")
