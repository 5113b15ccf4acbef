"""The convolutional network: bounded gates, the embedded example to the bit, its shape as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attnpriv import guarantees as g
from attnpriv.attention.gates import ChannelGate, Gate, SpatialGate
from attnpriv.certificate import certify_gates
from attnpriv.config import CNNS, AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.modality import Inputs, embed
from attnpriv.models.building import build_model, matrix_weights
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.shapes import CnnConfig, read_shape

TINY = CnnConfig(
    encoder="cnn-cbam",
    height=8,
    width=8,
    channels=1,
    patch=2,
    num_labels=10,
    dim=15,
    groups=3,
    attention=AttentionConfig(temperature=1.5, clip=1.0),
)
GATES = {"cnn": 0, "cnn-se": 2, "cnn-cbam": 4}


def make(**changes: Any) -> CnnClassifier:
    torch.manual_seed(0)
    return CnnClassifier(replace(TINY, **changes)).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_dataset("digits:rows=7")
    return TINY.patches.collate(TINY.patches.read(data.records))


def gates_seen(model: nn.Module, run: Any) -> dict[str, Tensor]:
    """The gates of every module while something runs."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Gate):
            module.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    run()
    return found


@pytest.mark.parametrize("mode", ["clamp", "tanh"])
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("sensitive", [1, 3, 16])
def test_gates_stay_within_their_certificate(
    inputs: Inputs, mode: Any, scale: float, sensitive: int
) -> None:
    """With large weights, logits are far beyond the clip, and the bounds are reached."""
    model = make(attention=replace(TINY.attention, clip_mode=mode))
    for module in model.modules():
        if isinstance(module, ChannelGate | SpatialGate):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=scale)
    certificates = certify_gates(model, 16, sensitive, TINY.dim)
    seen = gates_seen(model, lambda: model(inputs.values, inputs.mask))

    assert {each.module for each in certificates} == set(seen)
    low, high = g.gate_bounds(1.0, 1.5)
    for each in certificates:
        gates = seen[each.module].flatten(1).double()
        assert gates.shape[1] == each.positions == (16 if each.kind == "spatial" else TINY.dim)
        assert (each.smallest_gate, each.largest_gate) == (low, high)
        slack = 1 + 1e-6
        assert low / slack <= gates.min() <= gates.max() <= high * slack
        largest = gates.topk(each.sensitive).values.sum(1) / gates.sum(1)
        assert largest.max() * each.positions / each.sensitive <= each.lift_bound * slack
        if scale > 1 and each.kind == "channel":
            assert gates.max() / gates.min() == pytest.approx(each.ratio, rel=1e-4)


def test_without_a_clip_nothing_is_certified_of_gates() -> None:
    (first, *_) = certify_gates(make(attention=AttentionConfig()), 16, 4, 15)
    assert (first.largest_gate, first.ratio, first.lift_bound) == (None, None, None)
    (loose, *_) = certify_gates(make(attention=AttentionConfig(1.0, clip=2000.0)), 16, 4, 15)
    assert (loose.smallest_gate, loose.largest_gate, loose.ratio) == (0.0, 1.0, None)


@pytest.mark.parametrize("encoder", list(CNNS))
def test_each_name_has_its_gates(encoder: str) -> None:
    model = make(encoder=encoder)
    assert len(certify_gates(model, 16, 4, 15)) == GATES[encoder]
    assert sum(isinstance(module, SpatialGate) for module in model.modules()) == (
        2 if encoder == "cnn-cbam" else 0
    )


def test_gates_of_one_half_are_those_of_no_logits() -> None:
    gate = ChannelGate(TINY.attention, 15, largest=True)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    assert torch.equal(gate(torch.rand(2, 15, 3, 5)), torch.full((2, 15, 1, 1), 0.5))


@pytest.mark.parametrize("pooling", ["mean", "places"])
def test_the_baseline_in_the_place_of_an_embedding_is_a_black_patch(
    inputs: Inputs, pooling: Any
) -> None:
    model = make(pooling=pooling)
    nn.init.normal_(model.head.weight)
    example = embed(model, inputs)
    removed = torch.rand(len(inputs.mask), 16, generator=torch.Generator().manual_seed(0)) < 0.5
    blackened = torch.where(removed[..., None], 0, inputs.values)
    x = example.without(torch.arange(len(removed)), removed)
    assert torch.equal(x, model.embed(blackened))
    assert torch.equal(model.run(x, inputs.mask).outputs, model(blackened, inputs.mask))


def test_an_image_is_computed_by_itself(inputs: Inputs) -> None:
    """Group norm, and no batch norm: other images in the batch change nothing but rounding."""
    model = make()
    nn.init.normal_(model.head.weight)
    together = model(inputs.values, inputs.mask)
    alone = torch.cat([model(inputs.values[[i]], inputs.mask[[i]]) for i in range(7)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", list(CNNS))
def test_shapes_survive_json_and_give_the_same_model(encoder: str) -> None:
    shape = replace(TINY, encoder=encoder, pooling="mean")
    again = read_shape(json.loads(json.dumps(shape.to_dict())))
    assert again == shape
    model = build_model(again)
    assert isinstance(model, CnnClassifier)
    held = sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert 0 < matrix_weights(shape) <= held


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "cnn-eca"}, "expected one of cnn, cnn-se, cnn-cbam, got 'cnn-eca'"),
        ({"groups": 4}, "expected dim to be divisible by 4, got 15"),
        ({"pooling": "layers"}, "expected pooling mean or places with cnn, got 'layers'"),
        ({"attention": AttentionConfig(clip=1.0, clip_mode="norm")}, "expected clip mode clamp or"),
        ({"attention": AttentionConfig(temperature_floor=0.5)}, "no learned temperatures"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


def test_parts_that_it_does_not_have_cannot_be_trained() -> None:
    with pytest.raises(InputError, match="expected trainable head, bias or all with cnn"):
        make().select_trainable("last:1")
