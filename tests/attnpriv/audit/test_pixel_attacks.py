"""Attacks on pixels: their balls by known properties, and the measure on small models."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.robustness import LENGTHS, LEVELS, pixels
from attnpriv.audit.robustness.balls import Ball, Norm
from attnpriv.audit.robustness.pixels import PixelAttackResult, pixel_attacks
from attnpriv.config import AttentionConfig
from attnpriv.data import load_dataset
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.shapes import CnnConfig

B, T, P = 3, 5, 7


def around(norm: Norm) -> Ball:
    """Around images with black and white in them; the last patch only fills up."""
    generator = torch.Generator().manual_seed(3)
    x = (torch.rand(B, T, P, generator=generator) * 2 - 0.5).clamp(0, 1)
    movable = torch.ones(B, T, P)
    movable[:, -1] = 0
    return pixels.pixel_ball(x, movable, 0.3 * torch.arange(1, B + 1), norm)


def size(ball: Ball, x: Tensor) -> Tensor:
    move = (x - ball.x).flatten(1)
    return move.abs().amax(1) if ball.norm == "linf" else move.norm(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_moved_pixels_keep_their_range_and_their_radius(norm: Norm) -> None:
    ball = around(norm)
    generator = torch.Generator().manual_seed(1)
    far = ball.x + 3 * torch.randn(B, T, P, generator=generator)
    for x in (ball.nearest(far), ball.random(generator)):
        assert x.min() >= 0
        assert x.max() <= 1
        assert (x[:, -1] == ball.x[:, -1]).all()
        assert (size(ball, x) <= ball.radii * 1.0001).all()
    torch.testing.assert_close(ball.nearest(ball.nearest(far)), ball.nearest(far))
    # The limits cut moves off, and the radius is used up all the same.
    assert (size(ball, ball.nearest(far)) >= ball.radii * 0.999).all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_other_point_of_the_ball_is_nearer(norm: Norm) -> None:
    """The angle to any other point of a convex set is no acute one."""
    ball = around(norm)
    generator = torch.Generator().manual_seed(2)
    far = ball.x + torch.randn(B, T, P, generator=generator) * ball.movable
    near = ball.nearest(far)
    for _ in range(50):
        other = ball.random(generator)
        assert (((far - near) * (other - near)).sum((1, 2)) < 1e-3).all()


def test_what_is_near_enough_stays() -> None:
    ball = around("l2")
    near = ball.nearest(ball.x + 1e-3)
    torch.testing.assert_close(ball.nearest(near), near, rtol=0, atol=0)


def cnn(clip: float | None) -> CnnClassifier:
    torch.manual_seed(0)
    config = CnnConfig(
        encoder="cnn-cbam",
        height=8,
        width=8,
        channels=1,
        patch=3,  # 3 × 3 patches, of which five are filled up
        num_labels=10,
        dim=8,
        groups=2,
        layers=1,
        attention=AttentionConfig(clip=clip),
    )
    model = CnnClassifier(config).eval().requires_grad_(False)
    torch.nn.init.normal_(model.head.weight)
    return model


def digits(model: CnnClassifier, rows: int, right: bool = True) -> Documents:
    """Labelled by the model's own answers, or by others."""
    data = load_dataset(f"digits:rows={rows}")
    read = prepare(model.config.patches, data, [()] * rows)
    inputs = read.inputs(range(rows))
    labels = (model(inputs.values, inputs.mask).argmax(-1) + (not right)) % 10
    return prepare(
        model.config.patches, data.relabelled(labels.tolist(), data.label_names), [()] * rows
    )


@pytest.fixture(scope="module")
def result() -> PixelAttackResult:
    model = cnn(0.5)
    return pixel_attacks(model, digits(model, 4), most=3)


def test_accuracy_falls_with_the_radius_and_controls_pass(result: PixelAttackResult) -> None:
    assert (result.documents, result.sampled_from, result.clean.value) == (3, 4, 1)
    assert [at.scale for at in result.linf] == [*LEVELS]
    assert [at.scale for at in result.l2] == [*LENGTHS]
    for curve in (result.linf, result.l2):
        values = [at.strongest.value for at in curve]
        assert values == sorted(values, reverse=True)
        assert all(at.strongest.value <= at.own.value for at in curve)
    assert result.linf[-1].strongest.value < 1
    assert result.unclipped
    assert result.positive.passed
    assert result.null.passed
    assert result.valid


def test_the_same_seed_gives_the_same() -> None:
    model = cnn(None)
    documents = digits(model, 2)
    once = pixel_attacks(model, documents, most=1, seed=3)
    assert pixel_attacks(model, documents, most=1, seed=3) == once


def test_wrong_answers_are_not_attacked() -> None:
    model = cnn(None)
    found = pixel_attacks(model, digits(model, 2, right=False), most=2)
    assert found.clean.value == 0
    assert {at.own.value for at in (*found.linf, *found.l2)} == {0}
    assert not found.unclipped
    assert found.valid


def test_an_attack_that_leaves_the_range_of_pixels_fails_the_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = cnn(None)
    batches = [pixels._batch(digits(model, 12), d) for d in range(12)]
    assert pixels._positive_control(batches, 0).passed
    monkeypatch.setattr(pixels, "pixel_ball", partial(Ball, over=(-2, -1), limits=(-1.0, 2.0)))
    assert not pixels._positive_control(batches, 0).passed


def test_an_attack_that_walks_the_wrong_way_fails_the_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = cnn(None)
    batches = [pixels._batch(digits(model, 4), d) for d in range(4)]
    monkeypatch.setattr(Ball, "steepest", lambda ball, gradient: -gradient.sign())
    assert not pixels._positive_control(batches, 0).passed


def test_the_least_radius_of_a_linear_classifier_is_the_formulas() -> None:
    """Two pixels, white and black: the white one has no room upwards."""
    probe = pixels._LinearProbe(torch.zeros(1, 1, 3), 0)
    probe.w = torch.tensor([[1.0, 1.0, -1.0]])
    x = torch.tensor([[[0.0, 0.1, 1.0]]])  # the score is -0.9
    mask, label = torch.ones(1, 1, dtype=torch.bool), torch.tensor([0])
    batch = pixels.Batch(x, torch.ones_like(x), mask, label)
    # All three have room for 0.3.
    assert probe.least(batch) == pytest.approx({"linf": 0.3, "l2": 0.3 * 3**0.5}, rel=1e-5)
    still = pixels.Batch(x, torch.zeros_like(x), mask, label)
    assert probe.least(still) == {"linf": float("inf"), "l2": float("inf")}
