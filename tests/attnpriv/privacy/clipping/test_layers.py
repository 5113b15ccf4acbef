"""Clipped sums of single layers, of every kind and shape, against a loop over the records."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnpriv.attention import PerRecord
from attnpriv.privacy.clipping import gradients
from attnpriv.privacy.clipping.gradients import Products

PRIMES = (2, 3, 5, 7, 11, 13)
RECORDS = 5


def distinct_primes(count: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(PRIMES), min_size=count, max_size=count, unique=True)


def losses_on(x: Tensor) -> Callable[[nn.Module, slice], Tensor]:
    """Distances to random targets, whose gradients differ in norm from record to record."""

    def losses(module: nn.Module, rows: slice) -> Tensor:
        output = module(x[rows])
        generator = torch.Generator().manual_seed(1)
        target = 3 * torch.randn(len(x), *output.shape[1:], generator=generator)
        scale = torch.arange(1.0, len(x) + 1)[rows]
        return (output - target[rows]).square().reshape(len(output), -1).mean(1) * scale

    return losses


class Between(nn.Module):
    """A layer whose input needs a gradient too, as it comes from a trained layer."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.before = nn.Linear(width, width)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.layer(torch.tanh(self.before(x)))
        return output


@settings(max_examples=40)
@given(distinct_primes(5), st.integers(0, 2), st.booleans(), st.booleans())
def test_linear(
    reference: Any, sizes: list[int], positions: int, bias: bool, follows_a_layer: bool
) -> None:
    records, p, d, *others = sizes
    torch.manual_seed(0)
    layer: nn.Module = nn.Linear(p, d, bias=bias)
    if follows_a_layer:
        layer = Between(layer, p)
    x = torch.randn(records, *others[:positions], p)
    reference.assert_equals_loop(layer, losses_on(x), records)


@pytest.mark.parametrize("frozen", ["weight", "bias"])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (3, 2, 7)])
def test_half_frozen_linear(reference: Any, frozen: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(7, 11)
    layer.get_parameter(frozen).requires_grad_(False)
    reference.assert_equals_loop(layer, losses_on(torch.randn(RECORDS, *shape)), RECORDS)


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.GroupNorm, nn.Conv1d])
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_half_frozen_layers(reference: Any, kind: type[nn.Module], frozen: str) -> None:
    torch.manual_seed(0)
    arguments = {nn.LayerNorm: (7,), nn.GroupNorm: (1, 3), nn.Conv1d: (3, 5, 2)}[kind]
    layer = kind(*arguments)
    layer.get_parameter(frozen).requires_grad_(False)
    reference.assert_equals_loop(layer, losses_on(torch.randn(RECORDS, 3, 7)), RECORDS)


@pytest.mark.parametrize(
    ("positions", "p", "d", "written_out"),
    [(1, 11, 13, False), (2, 11, 13, False), (13, 3, 2, True), (23, 7, 5, True)],
)
def test_the_cheaper_form_is_kept(
    reference: Any,
    monkeypatch: pytest.MonkeyPatch,
    positions: int,
    p: int,
    d: int,
    written_out: bool,
) -> None:
    shapes, write_out = [], Products.write_out
    monkeypatch.setattr(
        Products,
        "write_out",
        lambda self, values: (shapes.append(values.shape), write_out(self, values))[1],
    )
    torch.manual_seed(0)
    losses = losses_on(torch.randn(RECORDS, positions, p))
    reference.assert_equals_loop(nn.Linear(p, d), losses, RECORDS)
    assert shapes == [(RECORDS, d, p)] * written_out


@pytest.mark.every_value
@pytest.mark.parametrize("traffic", [0, math.inf])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (13, 3), (7, 2, 3)])
def test_both_forms_are_right_for_any_shape(
    reference: Any, monkeypatch: pytest.MonkeyPatch, traffic: float, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(gradients, "TRAFFIC", traffic)
    torch.manual_seed(0)
    layer = Between(nn.Linear(3, 5), 3)
    losses = losses_on(torch.randn(RECORDS, *shape))
    reference.assert_equals_loop(layer, losses, RECORDS, cuts=(0, 2, RECORDS))


@settings(max_examples=40)
@given(distinct_primes(4), st.integers(1, 2), st.booleans(), st.integers(0, 2))
def test_layer_norm(
    reference: Any, sizes: list[int], normalized: int, bias: bool, positions: int
) -> None:
    torch.manual_seed(0)
    shape = sizes[:normalized]
    layer = Between(nn.LayerNorm(shape, bias=bias), shape[-1])
    nn.init.normal_(layer.layer.get_parameter("weight"))
    x = torch.randn(RECORDS, *sizes[2 : 2 + positions], *shape)
    reference.assert_equals_loop(layer, losses_on(x), RECORDS)


def test_what_rounding_does_to_a_sum_of_gradients_is_measured(reference: Any) -> None:
    """Norms over two features have gradients that cancel; a linear layer has none of that."""
    torch.manual_seed(0)
    x, wide = torch.randn(RECORDS, 2), torch.randn(RECORDS, 7)
    cancels, plain = Between(nn.LayerNorm(2), 2), nn.Linear(7, 3)
    two, seven = (
        reference.rounding_of_loop(module, losses_on(given), RECORDS, reference.flat(1.0), 1.0)
        for module, given in ((cancels, x), (plain, wide))
    )
    assert 0 < seven < 4e-7
    assert 0 < two < 1e-4


def test_norms_without_parameters_are_left_alone(reference: Any) -> None:
    torch.manual_seed(0)
    for layer in (nn.LayerNorm(7, elementwise_affine=False), nn.GroupNorm(3, 3, affine=False)):
        losses = losses_on(torch.randn(RECORDS, 3, 7))
        reference.assert_equals_loop(Between(layer, 7), losses, RECORDS)


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.parametrize("shape", [(), (5,), (5, 7)])
def test_group_norm(reference: Any, groups: int, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.GroupNorm(groups, 6)
    nn.init.normal_(layer.weight)
    module = Between(layer, shape[-1] if shape else 6)
    reference.assert_equals_loop(module, losses_on(torch.randn(RECORDS, 6, *shape)), RECORDS)


@settings(max_examples=40)
@given(
    st.lists(
        st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=RECORDS, max_size=RECORDS
    ),
    st.sampled_from([None, 0, 3, -1]),
)
def test_embedding_with_repeated_ids(
    reference: Any, ids: list[list[int]], padding: int | None
) -> None:
    torch.manual_seed(0)
    layer = nn.Embedding(7, 3, padding_idx=padding)
    unlike = [[0, 1, 2, 3, 6], *ids]  # no batch without any gradient
    reference.assert_equals_loop(layer, losses_on(torch.tensor(unlike)), RECORDS + 1)


@pytest.mark.parametrize("shape", [(RECORDS,), (RECORDS, 7), (RECORDS, 2, 3)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_embedding_of_ids_of_any_shape(
    reference: Any, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 11, shape).to(dtype)
    reference.assert_equals_loop(nn.Embedding(11, 3), losses_on(ids), RECORDS)


def test_embedding_of_expanded_ids(reference: Any) -> None:
    torch.manual_seed(0)
    ids = torch.tensor([4, 0, 4, 1, 2]).expand(RECORDS, 5)
    assert ids.stride(0) == 0
    reference.assert_equals_loop(nn.Embedding(5, 3), losses_on(ids), RECORDS)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=40)
@given(
    st.sampled_from([(1, 1), (2, 2), (2, 6), (4, 2)]),
    st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    st.sampled_from([0, 1, "same", "valid"]),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
)
def test_conv1d(
    reference: Any,
    channels: tuple[int, int],
    mode: str,
    padding: int | str,
    kernel: int,
    stride: int,
    dilation: int,
    bias: bool,
) -> None:
    torch.manual_seed(0)
    if padding == "same":
        stride = 1  # or torch refuses
    inputs, outputs = channels
    for groups in {1, math.gcd(inputs, outputs)}:
        layer = nn.Conv1d(
            inputs, outputs, kernel, stride, padding, dilation, groups, bias, mode
        )  # fmt: skip
        losses = losses_on(torch.randn(RECORDS, inputs, 11))
        reference.assert_equals_loop(Between(layer, 11), losses, RECORDS)


@pytest.mark.every_value
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation", "groups"),
    [
        ((3, 2), 1, "same", 1, 1),
        ((2, 3), (1, 2), (1, 0), 1, 2),
        (2, (2, 1), (0, 1), (1, 2), 1),
        ((1, 3), 2, 1, (3, 1), 2),
        (3, 1, "valid", 2, 2),
        ((2, 4), 1, "same", (2, 1), 2),
    ],
)
def test_conv2d(
    reference: Any,
    mode: str,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(
        4, 6, kernel, stride, padding, dilation, groups, padding_mode=mode
    )  # fmt: skip
    losses = losses_on(torch.randn(RECORDS, 4, 7, 11))
    reference.assert_equals_loop(Between(layer, 11), losses, RECORDS)


@pytest.mark.parametrize("shape", [(), (7,), (3, 7), (2, 3, 7)])
def test_a_parameter_for_each_record(reference: Any, shape: tuple[int, ...]) -> None:
    class Times(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = PerRecord(torch.randn(shape))

        def forward(self, x: Tensor) -> Tensor:
            factor: Tensor = self.factor(x.detach())
            return x * factor

    torch.manual_seed(0)
    reference.assert_equals_loop(Times(), losses_on(torch.randn(RECORDS, *shape)), RECORDS)


class Repeated(nn.Module):
    """One layer, applied three times to what may have another number of positions each time."""

    def __init__(self, layer: nn.Module, positions: tuple[int, int, int]) -> None:
        super().__init__()
        self.layer = layer
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        for positions in self.positions:
            x = torch.tanh(self.layer(x[:, :positions]))
        return x


@pytest.mark.every_pair
@pytest.mark.parametrize("layer", ["linear", "layer_norm"])
@pytest.mark.parametrize("positions", [(7, 7, 7), (13, 11, 7), (29, 1, 1)])
@pytest.mark.parametrize("traffic", [0, 30, math.inf])
def test_one_layer_three_times(
    reference: Any,
    monkeypatch: pytest.MonkeyPatch,
    layer: str,
    positions: tuple[int, int, int],
    traffic: float,
) -> None:
    monkeypatch.setattr(gradients, "TRAFFIC", traffic)
    torch.manual_seed(0)
    made = {"linear": nn.Linear(5, 5), "layer_norm": nn.LayerNorm(5)}[layer]
    losses = losses_on(torch.randn(RECORDS, positions[0], 5))
    reference.assert_equals_loop(Repeated(made, positions), losses, RECORDS)


def test_one_convolution_three_times(reference: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Conv1d(3, 3, 2, padding="same")
    losses = losses_on(torch.randn(RECORDS, 3, 7))
    reference.assert_equals_loop(Repeated(layer, (3, 3, 3)), losses, RECORDS)


class TwoTables(nn.Module):
    """One table under two names, each with ids of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(11, 3)
        self.second = nn.Embedding(11, 3)
        self.second.weight = self.first.weight

    def forward(self, ids: Tensor) -> Tensor:
        mean: Tensor = self.second(ids[:, :2]).mean(1, keepdim=True)
        return torch.tanh(self.first(ids)) * mean


def test_tied_embeddings(reference: Any) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 11, (RECORDS, 7))
    reference.assert_equals_loop(TwoTables(), losses_on(ids), RECORDS)


def test_linear_layers_with_one_weight_and_two_biases(reference: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    module[2].weight = module[0].weight
    reference.assert_equals_loop(module, losses_on(torch.randn(RECORDS, 3, 5)), RECORDS)


def test_an_output_may_be_changed_in_place(reference: Any) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3))
    reference.assert_equals_loop(module, losses_on(torch.randn(RECORDS, 2, 5)), RECORDS)


def test_an_output_may_go_unused(reference: Any) -> None:
    class Glanced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            self.layer(x)
            output: Tensor = self.layer(x)
            return output

    torch.manual_seed(0)
    reference.assert_equals_loop(Glanced(), losses_on(torch.randn(RECORDS, 2, 5)), RECORDS)


def test_strided_inputs_and_gradients(reference: Any) -> None:
    """Transposed inputs, and the gradient of a sum, which is one number expanded."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3))
    x = torch.randn(7, RECORDS, 5).transpose(0, 1)

    def losses(module: nn.Module, rows: slice) -> Tensor:
        output: Tensor = module(x[rows])
        return output.sum((1, 2)) * torch.arange(1.0, RECORDS + 1)[rows]

    reference.assert_equals_loop(module, losses, RECORDS)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 3),
        nn.Conv1d(5, 3, 2),
        nn.LayerNorm(7),
        nn.GroupNorm(1, 5),
        nn.Sequential(nn.Conv1d(5, 2, 3), nn.Tanh(), nn.GroupNorm(1, 2), nn.Linear(5, 3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_views_of_a_record_are_averaged_before_clipping(
    reference: Any, layer: nn.Module, views: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(RECORDS, views, 5, 7)
    targets = torch.randn(RECORDS)

    def losses(module: nn.Module, rows: slice) -> Tensor:
        output: Tensor = module(x[rows].flatten(0, 1)).unflatten(0, (-1, views))
        each = (output.flatten(2).sum(2) - targets[rows, None]).square()
        return each.mean(1)

    reference.assert_equals_loop(layer, losses, RECORDS, views=views)
    reference.assert_equals_loop(layer, losses, RECORDS, views=views, cuts=(0, 1, 3, RECORDS))


def test_views_of_embeddings_and_parameters_for_each_record(reference: Any) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(11, 3)
            self.scale = PerRecord(torch.randn(3))

        def forward(self, ids: Tensor) -> Tensor:
            vectors: Tensor = self.words(ids).sum(1)
            return vectors * self.scale(vectors.detach())

    torch.manual_seed(0)
    ids = torch.randint(0, 11, (RECORDS, 2, 7))

    def losses(module: nn.Module, rows: slice) -> Tensor:
        output: Tensor = module(ids[rows].flatten(0, 1)).unflatten(0, (-1, 2))
        return output.square().sum(2).mean(1)

    reference.assert_equals_loop(Scaled(), losses, RECORDS, views=2)


def test_channels_last_weights(reference: Any) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
    x = torch.randn(RECORDS, 3, 5, 7).to(memory_format=torch.channels_last)
    assert not layer.weight.is_contiguous()
    reference.assert_equals_loop(layer, losses_on(x), RECORDS)
