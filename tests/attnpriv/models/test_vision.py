"""The vision transformer: the embedded example to the bit, the certificate, the shape as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attnpriv import guarantees as g
from attnpriv.certificate import certify, worst_case
from attnpriv.config import AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.modality import Inputs, embed
from attnpriv.models.building import build_model, matrix_weights
from attnpriv.models.shapes import VisionConfig, read_shape
from attnpriv.models.vision import VisionClassifier

TINY = VisionConfig(
    height=8, width=8, channels=1, patch=3, num_labels=10, dim=15, layers=2, heads=3, hidden_dim=22
)


def make(attention: AttentionConfig, **changes: Any) -> VisionClassifier:
    torch.manual_seed(0)
    model = VisionClassifier(replace(TINY, attention=attention, **changes))
    for parameter in model.parameters():
        if parameter.ndim == 2:  # large enough that attention is far from uniform
            nn.init.normal_(parameter, std=0.6)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_dataset("digits:rows=7")
    return TINY.patches.collate(TINY.patches.read(data.records))


@pytest.mark.parametrize("pooling", ["mean", "layers", "places"])
@pytest.mark.parametrize("clip", [None, 2.0])
def test_the_baseline_in_the_place_of_an_embedding_is_a_black_patch(
    inputs: Inputs, clip: float | None, pooling: Any
) -> None:
    model = make(AttentionConfig(clip=clip), pooling=pooling)
    example = embed(model, inputs)
    drawn = torch.rand(23, *inputs.mask.shape, generator=torch.Generator().manual_seed(0))
    for share, each in enumerate(drawn):
        removed = each < share / 22
        blackened = torch.where(removed[..., None], 0, inputs.values)
        x = example.without(torch.arange(len(removed)), removed)
        assert torch.equal(x, model.embed(blackened))
        assert torch.equal(model.run(x, inputs.mask).outputs, model(blackened, inputs.mask))


@pytest.mark.parametrize("sensitive", [1, 4, 9])
@pytest.mark.parametrize("mode", ["clamp", "tanh", "norm", "relative"])
def test_the_certificate_bounds_attention_on_any_patches(
    inputs: Inputs, mode: str, sensitive: int
) -> None:
    model = make(AttentionConfig(temperature=1.5, clip=1.0, clip_mode=mode))
    worst = worst_case(certify(model, keys=9, sensitive=sensitive))
    assert worst.lift_bound == pytest.approx(g.lift_bound(1.0, 1.5, 9, sensitive))
    seen = model.run(model.embed(inputs.values), inputs.mask, need_maps=True)
    for weights in seen.self_attention():
        largest = weights.topk(sensitive, dim=-1).values.sum(-1).max()
        assert largest <= worst.mass_bound * (1 + 1e-5)


def test_shapes_survive_json_and_give_the_same_model() -> None:
    shape = replace(TINY, attention=AttentionConfig(clip=2.0), pooling="mean", share_layers=True)
    again = read_shape(json.loads(json.dumps(shape.to_dict())))
    assert again == shape
    assert isinstance(build_model(again), VisionClassifier)


@pytest.mark.parametrize("share_layers", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "layers", "places"])
def test_the_matrices_are_counted_before_they_are_made(share_layers: bool, pooling: Any) -> None:
    shape = replace(TINY, share_layers=share_layers, pooling=pooling)
    held = sum(p.numel() for p in build_model(shape).parameters() if p.ndim == 2)
    assert matrix_weights(shape) == held


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch": 0}, "expected patch to be a whole number from 1"),
        ({"heads": 4}, "expected dim to be divisible by 4, got 15"),
        ({"pooling": "cls"}, "expected pooling mean, layers or places for images, got 'cls'"),
        ({"num_labels": 1}, "expected num_labels >= 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)
    with pytest.raises(InputError, match="not usable: .*colour"):
        read_shape({**TINY.to_dict(), "colour": True})


def test_other_patches_are_refused() -> None:
    with pytest.raises(InputError, match="expected 9 patches of 9 numbers, got 4 × 9"):
        make(AttentionConfig()).embed(torch.zeros(2, 4, 9))
