"""What the books cannot clip is refused, by the name of the parameter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.errors import InputError
from attnpriv.privacy.clipping import make_engine
from attnpriv.privacy.clipping.book_keeping import BookKeeping

RECORDS, POSITIONS = 3, 5


def whole(norms: Tensor) -> Tensor:
    return torch.ones_like(norms)


def accumulate(module: nn.Module, losses: Callable[[], Tensor], views: int = 1) -> list[Tensor]:
    """The sums after one micro-batch, and a failure if a refusal has moved them."""
    engine = BookKeeping(module, whole)
    totals = {p: torch.zeros_like(p) for p in module.parameters() if p.requires_grad}
    try:
        engine.accumulate(losses(), totals, views)
    except InputError:
        assert not any(total.any() for total in totals.values())
        raise
    finally:
        engine.close()
    return list(totals.values())


class Scaled(nn.Module):
    """A parameter on no layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.scale = nn.Parameter(torch.ones(2))


class OwnLinear(nn.Linear):
    """It may compute anything."""


def with_tied_table() -> nn.Module:
    module = nn.ModuleDict({"words": nn.Embedding(7, 3), "decoder": nn.Linear(3, 7)})
    module["decoder"].weight = module["words"].weight
    return module


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Scaled(), "scale"),
        (nn.Sequential(nn.MultiheadAttention(4, 2)), "0.in_proj_weight"),
        (nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), "1.weight"),
        (nn.Sequential(nn.LSTM(3, 2)), "0.weight_ih_l0"),
        (nn.Sequential(nn.EmbeddingBag(7, 3)), "0.weight"),
        (nn.Sequential(nn.Embedding(7, 3, max_norm=1.0)), "0.weight"),
        (nn.Sequential(nn.Embedding(7, 3, sparse=True)), "0.weight"),
        (nn.Sequential(nn.Embedding(7, 3, scale_grad_by_freq=True)), "0.weight"),
        (nn.Sequential(OwnLinear(3, 2)), "0.weight"),
        (nn.utils.parametrizations.orthogonal(nn.Linear(3, 3)), "bias"),
    ],
    ids=str,
)
def test_a_layer_that_is_not_known(module: nn.Module, name: str) -> None:
    with pytest.raises(InputError, match=rf"the trainable parameter {name} belongs to a \w+ whose"):
        BookKeeping(module, whole)
    module.requires_grad_(False)
    BookKeeping(module, whole).close()  # frozen, it is no concern of ours


@pytest.mark.parametrize("engine", ["book_keeping", "hooks", "ghost"])
@pytest.mark.parametrize(
    "module", [nn.BatchNorm1d(3), nn.LSTM(3, 2), nn.MultiheadAttention(4, 2)], ids=str
)
def test_what_no_engine_can_clip(engine: str, module: nn.Module) -> None:
    with pytest.raises(InputError, match="the model cannot be trained privately"):
        make_engine(engine, nn.Sequential(module), 1.0, "flat")  # type: ignore[arg-type]


def test_a_parameter_of_layers_of_two_kinds() -> None:
    with pytest.raises(InputError, match=r"decoder\.weight is shared by a Embedding and a Linear"):
        BookKeeping(with_tied_table(), whole)


def test_a_second_engine_on_the_same_layers() -> None:
    module = nn.Linear(3, 2)
    engine = BookKeeping(module, whole)
    with pytest.raises(InputError, match="the trainable parameter weight"):
        BookKeeping(module, whole)
    engine.close()
    BookKeeping(module, whole).close()


class Positioned(nn.Module):
    """Words and positions, the latter embedded as a test says."""

    def __init__(self, positions: Tensor) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 4)
        self.positions = nn.Embedding(POSITIONS, 4)
        self.chosen = positions

    def forward(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.words(ids) + self.positions(self.chosen)
        return vectors.square().sum((1, 2))


@pytest.mark.parametrize(
    "positions", [torch.arange(POSITIONS), torch.arange(POSITIONS)[None]], ids=["[T]", "[1, T]"]
)
def test_positions_that_are_embedded_once_for_all_records(positions: Tensor) -> None:
    module = Positioned(positions)
    ids = torch.randint(0, 11, (RECORDS, POSITIONS))
    with pytest.raises(InputError, match=r"the layer of positions\.weight computed [15] rows for"):
        accumulate(module, lambda: module(ids))


def test_a_batch_that_is_not_the_first_dimension() -> None:
    module, x = nn.Linear(4, 2), torch.randn(POSITIONS, RECORDS, 4)
    with pytest.raises(InputError, match="the layer of weight, bias computed 5 rows for 3"):
        accumulate(module, lambda: module(x).sum((0, 2)))


def test_a_number_of_views_that_is_not_the_batch_s() -> None:
    module, x = nn.Linear(4, 2), torch.randn(2 * RECORDS, 4)
    losses = lambda: module(x).sum(1).view(RECORDS, 2).mean(1)  # noqa: E731
    assert accumulate(module, losses, views=2)
    for views in (1, 3):
        with pytest.raises(InputError, match=f"computed 6 rows for {views * RECORDS}"):
            accumulate(module, losses, views)


class OutsideItsLayer(nn.Module):
    def __init__(self, also_inside: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.also_inside = also_inside

    def forward(self, x: Tensor) -> Tensor:
        if self.also_inside:
            x = torch.tanh(self.linear(x))
        return F.linear(x, self.linear.weight).sum(1)


@pytest.mark.parametrize("also_inside", [True, False])
def test_a_parameter_that_is_used_outside_its_layer(also_inside: bool) -> None:
    module, x = OutsideItsLayer(also_inside), torch.randn(RECORDS, 4)
    with pytest.raises(InputError, match=r"linear\.weight was used outside its layer"):
        accumulate(module, lambda: module(x))


def test_a_penalty_on_a_parameter() -> None:
    module, x = nn.Linear(4, 2), torch.randn(RECORDS, 4)
    with pytest.raises(InputError, match="weight was used outside its layer"):
        accumulate(module, lambda: module(x).sum(1) + module.weight.square().sum() / RECORDS)


def test_a_penalty_on_the_gradient_of_the_input() -> None:
    """Its gradient passes through the backward pass, which the books do not see."""
    module, x = nn.Linear(4, 2), torch.randn(RECORDS, 4, requires_grad=True)

    def losses() -> Tensor:
        output = torch.tanh(module(x)).sum(1)
        (slope,) = torch.autograd.grad(output.sum(), x, create_graph=True)
        return output + slope.square().sum(1)

    with pytest.raises(RuntimeError, match="differentiate twice"):
        accumulate(module, losses)


@pytest.mark.parametrize("idle", [nn.Linear(4, 2), nn.LayerNorm(4), nn.Embedding(3, 2)], ids=str)
def test_a_loss_that_does_not_depend_on_a_parameter(idle: nn.Module) -> None:
    module, x = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": idle}), torch.randn(RECORDS, 4)
    with pytest.raises(
        InputError, match=r"does not depend on the trainable parameter idle\.weight"
    ):
        accumulate(module, lambda: module["used"](x).sum(1))


def test_a_layer_whose_output_is_cut_off() -> None:
    module, x = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(RECORDS, 4)
    with pytest.raises(InputError, match=r"does not depend on the trainable parameter 0\.weight"):
        accumulate(module, lambda: module[1](module[0](x).detach()).sum(1))


def test_an_input_that_is_changed_in_place() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x += self.second(x)
            return x.square().sum(1)

    module, x = Residual(), torch.randn(RECORDS, 4)
    with pytest.raises(
        InputError, match=r"input of the layer of second\.weight, second\.bias was changed in place"
    ):
        accumulate(module, lambda: module(x))


def test_a_refusal_leaves_the_books_empty() -> None:
    """The next micro-batch is summed as if the refused one had never been."""
    torch.manual_seed(0)
    module, x = nn.Linear(4, 2), torch.randn(RECORDS, 4)
    fresh = accumulate(module, lambda: module(x).square().sum(1))
    engine = BookKeeping(module, whole)
    totals = {p: torch.zeros_like(p) for p in module.parameters()}
    refused = [
        module(x).sum(1) + module.weight.sum(),
        module(torch.randn(RECORDS + 1, 4)).sum().expand(RECORDS),
    ]
    for losses in refused:
        with pytest.raises(InputError):
            engine.accumulate(losses, totals)
    engine.accumulate(module(x).square().sum(1), totals)
    engine.close()
    assert all(map(torch.equal, totals.values(), fresh))
