"""AutoPGD on functions whose best point is known, and on models that hide their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnpriv.audit.documents import Documents
from attnpriv.audit.robustness import SCALES
from attnpriv.audit.robustness.autopgd import Found, Goal, Reached, autopgd
from attnpriv.audit.robustness.balls import Ball, Norm
from attnpriv.audit.robustness.batches import Batch, is_right, make_batch
from attnpriv.audit.robustness.captum_attacks import pgd
from attnpriv.audit.robustness.embedding import make_target
from attnpriv.audit.robustness.goals import WrongAnswer, dlr, losses, margin
from attnpriv.audit.robustness.searching import FINE, NEAREST, Target, attack, breaks
from attnpriv.audit.robustness.surrogates import unclipped
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.modality import embed
from attnpriv.models.text import TextClassifier
from attnpriv.tasks import CLASSIFY
from tests.attnpriv.conftest import MakeModel

B, T, D = 3, 5, 7


def ball(norm: Norm = "linf", radius: float = 0.5, seed: int = 0) -> Ball:
    """Around random points; the first position may not move."""
    generator = torch.Generator().manual_seed(seed)
    movable = torch.ones(B, T, D)
    movable[:, 0] = 0
    radii = radius * torch.arange(1, B + 1)
    return Ball(torch.randn(B, T, D, generator=generator), movable, radii, norm)


def length(of: Ball, moved: Tensor) -> Tensor:
    """The size of the largest move of a position, [B]."""
    move = moved - of.x
    size = move.abs().amax(-1) if of.norm == "linf" else move.norm(dim=-1)
    return size.amax(-1)


def product(w: Tensor) -> Goal:
    """Of which the best point is known; never met."""
    return lambda x: Reached((x * w).sum((1, 2)), torch.zeros(len(x), dtype=torch.bool))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_moves_stay_in_the_ball_and_reach_its_edge(norm: Norm) -> None:
    around = ball(norm)
    for moved in (around.random(torch.Generator().manual_seed(1)), around.x + 9):
        near = around.nearest(moved)
        assert torch.allclose(around.nearest(near), near)
        assert (near[:, 0] == around.x[:, 0]).all()
        assert (length(around, near) <= around.radii * 1.00001).all()
    assert torch.allclose(length(around, around.nearest(around.x + 9)), around.radii)


@pytest.mark.parametrize("radius", [-0.5, float("nan")])
def test_a_radius_below_zero_is_refused(radius: float) -> None:
    with pytest.raises(InputError, match=r"expected radii of 0 or more, got \[(-0.5|nan)"):
        ball(radius=radius)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_best_point_of_a_linear_function_is_found(norm: Norm) -> None:
    around, w = ball(norm), torch.randn(B, T, D, generator=torch.Generator().manual_seed(2))
    found = autopgd(product(w), around, around.x, 20)
    sizes = w[:, 1:].abs().sum((1, 2)) if norm == "linf" else w[:, 1:].norm(dim=-1).sum(1)
    expected = (around.x * w).sum((1, 2)) + around.radii * sizes
    assert torch.allclose(found.values, expected, rtol=1e-4)
    assert not found.met.any()


def test_gradients_whose_squares_underflow_still_show_the_way() -> None:
    around, w = ball("l2"), torch.ones(B, T, D)
    tiny = autopgd(product(w * 1e-30), around, around.x, 5)
    assert torch.allclose(tiny.x, autopgd(product(w), around, around.x, 5).x, atol=1e-5)


def test_a_curved_function_is_climbed_where_fixed_steps_cross_its_top() -> None:
    around = ball(radius=1.0)
    top = around.nearest(around.x + 0.3)

    def goal(x: Tensor) -> Reached:
        return Reached(-((x - top) ** 2).sum((1, 2)), torch.zeros(B, dtype=torch.bool))

    errors = [float(-autopgd(goal, around, around.x, steps).values.sum()) for steps in (5, 20, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.002 < errors[0]


def test_rows_do_not_see_each_other_and_the_start_counts() -> None:
    around, w = ball(), torch.randn(B, T, D, generator=torch.Generator().manual_seed(2))
    together = autopgd(product(w), around, around.x, 7)
    for row in range(B):
        own = slice(row, row + 1)
        alone = Ball(around.x[own], around.movable[own], around.radii[own])
        found = autopgd(product(w[own]), alone, alone.x, 7)
        assert torch.equal(found.x[0], together.x[row])
    best = together.x
    kept = autopgd(lambda x: Reached(-(x - best).abs().sum((1, 2)), (x == best).all(2).all(1)),
                   around, best, 7)  # fmt: skip
    assert kept.met.all()
    assert torch.equal(kept.x, best)


def test_a_point_that_meets_the_goal_beats_one_of_a_higher_value() -> None:
    one = Found(torch.zeros(2, 1, 1), torch.tensor([5.0, 1.0]), torch.tensor([False, True]))
    other = Found(torch.ones(2, 1, 1), torch.tensor([1.0, 5.0]), torch.tensor([True, False]))
    better = one.or_better(other)
    assert better.values.tolist() == [1.0, 1.0]
    assert better.x.flatten().tolist() == [1.0, 0.0]
    assert better.met.all()


def test_margin_and_dlr_are_those_of_their_formulas() -> None:
    outputs = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.5, 4.0, 2.0, 1.0]])
    labels = torch.tensor([0, 2])
    assert margin(outputs, labels).tolist() == [-2.0, 2.0]
    assert torch.allclose(dlr(outputs, labels), torch.tensor([-2 / 3, 2 / 3]))
    assert torch.allclose(dlr(100 * outputs, labels), dlr(outputs, labels))


def test_with_two_classes_the_margin_has_the_direction_of_cross_entropy() -> None:
    assert losses(2) == (margin,)
    assert losses(3) == (CLASSIFY.losses, dlr)
    logits = torch.randn(11, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = torch.arange(11) % 2
    grads = [torch.autograd.grad(loss(logits, labels).sum(), logits)[0] for loss in
             (margin, CLASSIFY.losses)]  # fmt: skip
    assert torch.allclose(*(F.normalize(grad) for grad in grads))


# Against gradient masking: what an attack on a model must do, whatever the model.

SCALES_BEYOND = (0.01, 0.05, 0.2)


@pytest.fixture(scope="module")
def batches(model: TextClassifier, documents: Documents) -> list[Batch]:
    return of_model(model, documents)


def of_model(model: TextClassifier, documents: Documents, count: int = 4) -> list[Batch]:
    """Documents with the model's own answers as their labels."""
    made = []
    for document in range(count):
        example = embed(model, documents.inputs([document]))
        with torch.no_grad():
            labels = model.run(example.x, example.mask).outputs.argmax(-1)
        made.append(make_batch(example, labels))
    return made


def broken(target: Target, batches: list[Batch], scales: tuple[float, ...], steps: int = 12) -> int:
    """How many pairs of a document and a scale AutoPGD breaks."""
    total = 0
    for number, batch in enumerate(batches):
        for scale in scales:
            radius = target.radius(scale, "linf", batch.x.shape[-1])
            total += breaks(target, batch, radius, "linf", batch.x, number, steps)[1]
    return total


HIDING = {
    "plain": AttentionConfig(),
    "clamp": AttentionConfig(clip=0.05),
    "relative": AttentionConfig(clip=0.05, clip_mode="relative"),
    "tanh": AttentionConfig(clip=0.05, clip_mode="tanh"),
    "norm": AttentionConfig(clip=0.05, clip_mode="norm"),
}


@pytest.mark.parametrize("name", HIDING)
def test_an_attack_without_bounds_breaks_every_answer(
    make_model: MakeModel, documents: Documents, name: str
) -> None:
    model = make_model(HIDING[name])
    batches = of_model(model, documents, 3)
    assert broken(make_target(model, 1.0), batches, (50.0,)) == len(batches)


def test_more_steps_and_larger_radii_never_hurt_the_attacker(
    model: TextClassifier, batches: list[Batch]
) -> None:
    target = make_target(model, 1.0)
    by_steps = [broken(target, batches, SCALES_BEYOND, steps) for steps in (0, 3, 12, 40)]
    assert by_steps == sorted(by_steps)
    assert by_steps[0] < by_steps[-1]
    by_radius = [broken(target, batches, (scale,)) for scale in SCALES_BEYOND]
    assert by_radius == sorted(by_radius)


def test_the_white_box_beats_random_search_and_transfer(
    make_model: MakeModel, model: TextClassifier, batches: list[Batch]
) -> None:
    white = broken(make_target(model, 1.0), batches, SCALES_BEYOND)
    guessed = sum(
        random_search(model, batch, scale) for batch in batches for scale in SCALES_BEYOND
    )
    carried = sum(transfer(make_model, model, batch, s) for batch in batches for s in SCALES_BEYOND)
    assert white > guessed
    assert white > carried


def random_search(model: TextClassifier, batch: Batch, scale: float, tries: int = 50) -> bool:
    """Whether one of many random points of the ball is answered wrongly."""
    rows = batch.part(torch.zeros(tries, dtype=torch.int64))
    inside = Ball(rows.x, rows.movable, torch.full((tries,), scale))
    moved = inside.random(torch.Generator().manual_seed(0))
    return not bool(is_right(lambda x, mask: model.run(x, mask).outputs, moved, rows).all())


def transfer(make_model: MakeModel, model: TextClassifier, batch: Batch, scale: float) -> bool:
    """Whether what misleads a model with other attention misleads this one."""
    other = make_model(AttentionConfig(temperature=4.0, clip=0.5))
    torch.nn.init.normal_(other.head.weight, generator=torch.Generator().manual_seed(1))
    one = torch.zeros(1, dtype=torch.int64)
    goal = WrongAnswer(
        lambda x, mask: other.run(x, mask).outputs, batch.mask, batch.labels, (margin,), one
    )
    inside = Ball(batch.x, batch.movable, torch.tensor([scale]))
    found = autopgd(goal, inside, batch.x, 12, enough=lambda met: False)
    return not bool(is_right(lambda x, mask: model.run(x, mask).outputs, found.x, batch).all())


def test_autopgd_is_never_weaker_than_pgd(model: TextClassifier, batches: list[Batch]) -> None:
    target = make_target(model, 1.0)
    seen = set()
    for number, batch in enumerate(batches):
        for radius in (0.001, 0.01, 0.05):
            end = pgd(target.answer, batch, torch.tensor([radius]))
            by_pgd = not bool(is_right(target.answer, end, batch))
            by_autopgd, _ = breaks(target, batch, radius, "linf", end, number)
            assert by_autopgd >= by_pgd
            alone, _ = breaks(target, batch, radius, "linf", batch.x, number)
            assert alone >= by_pgd  # without its help, too
            seen.add(by_pgd)
    assert seen == {True, False}


def test_flat_gradients_of_a_clip_are_passed_by(
    make_model: MakeModel, documents: Documents
) -> None:
    """A model that reads its attention alone, past the clip: its own gradients are all 0."""
    target, batch = saturated()
    assert breaks(target, batch, 1.0, "linf") == (False, True)
    without = Target(target.answer, None, 1.0)
    assert breaks(without, batch, 1.0, "linf") == (False, False)


def saturated() -> tuple[Target, Batch]:
    """An answer that depends on a logit clipped to ±1, at a point where the logit is 3."""

    def answer(clip: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        def logits(x: Tensor, mask: Tensor) -> Tensor:
            score = clip(x.sum((1, 2)))
            return torch.stack([score - 0.5, 0 * score], dim=-1)

        return logits

    x, movable = torch.full((1, 2, 3), 0.5), torch.ones(1, 2, 3)
    batch = Batch(x, movable, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    return Target(answer(lambda z: z.clamp(-1, 1)), answer(lambda z: z), 1.0), batch


def test_the_copy_without_a_clip_shares_weights_and_leaves_the_model_as_it_is(
    make_model: MakeModel,
) -> None:
    assert unclipped(make_model(AttentionConfig())) is None
    model = make_model(AttentionConfig(clip=0.5))
    bare = unclipped(model)
    assert bare is not None
    assert bare.head.weight is model.head.weight
    cores = [block.attention.core for block in model.blocks]
    assert {core.config.clip for core in cores} == {0.5}
    assert {block.attention.core.config.clip for block in bare.blocks} == {None}


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_least_radii_are_those_of_the_formula(norm: Norm) -> None:
    """A sum of coordinates changes its sign at a move that can be written down."""
    x, movable = torch.full((1, 2, 3), 0.1), torch.ones(1, 2, 3)

    def answer(x: Tensor, mask: Tensor) -> Tensor:
        score = x.sum((1, 2))
        return torch.stack([score, -score], dim=-1)

    batch = Batch(x, movable, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    target = Target(answer, None, 1.0)
    edge = target.radius(0.1, norm, 3)
    for factor, expected in ((0.99, False), (1.01, True)):
        assert breaks(target, batch, factor * edge, norm)[0] == expected
    standing = attack(target, batch)
    assert (standing.strongest, standing.l2) == ((True,) * len(SCALES), (True,) * len(SCALES))
    assert 0.1 <= standing.least <= 0.1 * FINE


def test_a_least_radius_lies_between_scales_or_is_infinite() -> None:
    target, batch = saturated()
    out_of_reach = attack(Target(target.answer, target.guide, deviation=0.01), batch)
    assert out_of_reach.least == float("inf")
    assert out_of_reach.strongest == (True,) * len(SCALES)
    at = attack(Target(target.answer, target.guide, deviation=0.5 / 0.015), batch)  # sum 3 to 0
    assert SCALES[0] < at.least <= SCALES[1]
    assert at.strongest == (True, False, False)


def test_autopgd_from_the_document_finds_nothing_nearer_than_the_least_radius(
    model: TextClassifier, batches: list[Batch]
) -> None:
    target = make_target(model, 1.0)
    leasts = [attack(target, batch, number).least for number, batch in enumerate(batches)]
    assert max(leasts) < math.inf
    assert sum(least > NEAREST for least in leasts) == 3
    for least, batch in zip(leasts, batches, strict=True):
        for share in (0.95, 0.5):
            if least > NEAREST:  # where the search ends
                assert breaks(target, batch, share * least, "linf") == (False, False)


def test_what_breaks_at_middle_radii_alone_is_found() -> None:
    """An answer that is wrong only where the sum of all moves is from 0.5 to 1.2."""
    x, movable = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)

    def answer(x: Tensor, mask: Tensor) -> Tensor:
        score = (x.sum((1, 2)) - 0.85).abs() - 0.35
        return torch.stack([score, 0 * score], dim=-1)

    batch = Batch(x, movable, torch.ones(1, 2, dtype=torch.bool), torch.tensor([0]))
    standing = attack(Target(answer, None, 1.0), batch)
    assert 0.5 / 6 <= standing.least <= 0.5 / 6 * FINE
