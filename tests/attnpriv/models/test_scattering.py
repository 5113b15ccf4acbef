"""The scattering transform against direct convolutions and Kymatio, and the model around it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnpriv.config import AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.modality import Inputs, embed
from attnpriv.models.building import build_model, matrix_weights
from attnpriv.models.scattering import Scattering, ScatteringClassifier, gabor, morlet
from attnpriv.models.shapes import ScatteringConfig, read_shape

TINY = ScatteringConfig(height=8, width=8, channels=1, patch=3, dim=9, num_labels=10)

GOLD = (0.473551, 0.076703, 0.089835, 0.056989, 0.072416, 0.006427, 0.004837, 0.011767)
SUMS = [1.32453, 3.82568, 1.82376]


def make() -> ScatteringClassifier:
    torch.manual_seed(0)
    model = ScatteringClassifier(TINY)
    nn.init.normal_(model.head.weight)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    data = load_dataset("digits:rows=7")
    return TINY.patches.collate(TINY.patches.read(data.records))


@pytest.fixture(scope="module")
def image() -> Tensor:
    pixels = load_dataset("digits:rows=2").records[0]
    return torch.from_numpy(pixels[None, ..., 0].astype(np.float32) / 255)[None]


def test_wavelets_see_no_constant_and_the_low_pass_keeps_it() -> None:
    for scale in (0, 1):
        assert abs(morlet((16, 20), scale, 3).sum()) < 1e-12
    assert gabor((16, 20), 1.6, 0.0, 0.0, 1.0).sum().real == pytest.approx(1)
    flat = Scattering(9, 13)(torch.full((1, 2, 9, 13), 0.3))
    assert flat.shape == (1, 2 * 81, 2, 3)
    by_channel = flat.view(2, 81, 2, 3)
    torch.testing.assert_close(by_channel[:, 0], torch.full((2, 2, 3), 0.3), atol=1e-4, rtol=0)
    assert by_channel[:, 1:].abs().max() < 1e-5


def wrapped(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The circular convolution, by its definition."""
    rows, columns = x.shape
    out = np.zeros_like(kernel)
    for down in range(rows):
        for right in range(columns):
            out += x[down, right] * np.roll(kernel, (down, right), (0, 1))
    return out


def test_paths_are_what_convolutions_give(image: Tensor) -> None:
    """Of both orders, one path each, from filters in space."""
    padded = np.pad(image[0, 0].numpy().astype(np.float64), 4, mode="reflect")
    low = gabor((16, 16), 1.6, 0.0, 0.0, 1.0)
    first = abs(wrapped(padded, morlet((16, 16), 0, 5)))
    second = abs(wrapped(first, morlet((16, 16), 1, 2)))
    found = Scattering(8, 8)(image)[0]
    for path, moduli in ((1 + 5, first), (17 + 5 * 8 + 2, second)):
        expected = wrapped(moduli, low).real[::4, ::4][1:-1, 1:-1]
        # Values of order 2 are kept at every second pixel, which leaves a little of the upper
        # frequencies.
        np.testing.assert_allclose(found[path].numpy(), expected, rtol=0.02)


def test_kymatio_gives_the_same_numbers(image: Tensor) -> None:
    """Those of kymatio 0.3.0 with J = 2 and L = 8, of the first digit, at its second place."""
    found = Scattering(8, 8)(image)[0]
    known = dict(zip((0, 1, 4, 9, 16, 17, 30, 80), GOLD, strict=True))
    for path, value in known.items():
        assert float(found[path, 0, 1]) == pytest.approx(value, abs=3e-5)
    sums = [float(found[part].sum()) for part in (slice(1), slice(1, 17), slice(17, 81))]
    assert sums == pytest.approx(SUMS, rel=1e-4)


def test_the_baseline_in_the_place_of_an_embedding_is_a_black_patch(inputs: Inputs) -> None:
    model = make()
    example = embed(model, inputs)
    removed = torch.rand(len(inputs.mask), 9, generator=torch.Generator().manual_seed(0)) < 0.5
    blackened = torch.where(removed[..., None], 0, inputs.values)
    x = example.without(torch.arange(len(removed)), removed)
    assert torch.equal(x, blackened)
    assert torch.equal(model.run(x, inputs.mask).outputs, model(blackened, inputs.mask))


def test_an_image_is_computed_by_itself_and_its_features_have_norm_1(inputs: Inputs) -> None:
    model = make()
    together = model.run(inputs.values, inputs.mask)
    alone = torch.cat([model(inputs.values[[i]], inputs.mask[[i]]) for i in range(7)])
    torch.testing.assert_close(together.outputs, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together.features.norm(dim=1), torch.ones(7))
    black = model.run(torch.zeros_like(inputs.values), inputs.mask).features
    assert black.abs().max() == 0


def test_gradients_are_finite_where_moduli_are_0() -> None:
    x = torch.zeros(1, 9, 9, requires_grad=True)
    (gradient,) = torch.autograd.grad(make()(x, torch.ones(1, 9)).sum(), x)
    assert gradient.isfinite().all()


def test_places_are_those_of_pixels(inputs: Inputs) -> None:
    """Patches are put together as they were cut, filled up or not."""
    seen: list[Tensor] = []
    model = make()
    model.scattering.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model(inputs.values, inputs.mask)
    pixels = np.stack(load_dataset("digits:rows=7").records).transpose(0, 3, 1, 2)
    torch.testing.assert_close(seen[0], torch.from_numpy(pixels.astype(np.float32) / 255))


def test_shapes_survive_json_and_give_the_same_model() -> None:
    again = read_shape(json.loads(json.dumps(TINY.to_dict())))
    assert again == TINY
    model = build_model(again)
    assert isinstance(model, ScatteringClassifier)
    assert matrix_weights(TINY) == 10 * 81 * 2 * 2 == model.head.weight.numel()
    assert set(model.state_dict()) == {"head.weight", "head.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 7}, "expected images of at least 8 × 8 pixels with scattering, got 8 × 7"),
        ({"dim": 8}, "expected dim 9, the numbers of a patch, got 8"),
        ({"layers": 3}, "expected 2 layers with scattering, got 3"),
        ({"pooling": "mean"}, "expected pooling places with scattering, got 'mean'"),
        ({"attention": AttentionConfig(clip=1.0)}, "scattering, which has no attention"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(TINY, **changes)


def test_nothing_but_the_head_is_trained() -> None:
    with pytest.raises(InputError, match="expected trainable head with scattering"):
        make().select_trainable("all")
