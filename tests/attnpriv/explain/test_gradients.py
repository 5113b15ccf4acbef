from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import pytest
import torch
from torch import nn

from attnpriv.config import AttentionConfig, ClipMode
from attnpriv.explain.gradients import (
    MOST_HALVINGS,
    MOST_POINTS,
    POINTS_FOR_ALL,
    TOLERANCE,
    integrated_gradients,
)
from attnpriv.modality import AttentionModel, Embedded, Inputs, Pass, embed
from attnpriv.models.text import TextClassifier

Tickets = Callable[[Sequence[int]], Inputs]


TARGET = torch.tensor([1, 4, 7])


def _riemann(
    model: TextClassifier, example: Embedded, target: torch.Tensor, steps: int
) -> torch.Tensor:
    """Integrated gradients by the midpoint rule, one point after the other."""
    x, base = example.x, example.baseline
    total = torch.zeros_like(x)
    for step in range(steps):
        at = (base + (step + 0.5) / steps * (x - base)).requires_grad_()
        logits = model.run(at, example.mask).outputs.gather(1, target[:, None]).sum()
        total += torch.autograd.grad(logits, at)[0]
    return ((x - base) * total / steps).sum(-1)


@pytest.mark.exhaustive
def test_agrees_with_a_riemann_sum(model: TextClassifier, read: Tickets) -> None:
    example = embed(model, read([0, 1, 2]))
    ours = integrated_gradients(model, example, TARGET, steps=300).scores
    expected = _riemann(model, example, TARGET, steps=600)
    torch.testing.assert_close(ours, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def _difference(model: TextClassifier, inputs: Inputs, target: torch.Tensor) -> torch.Tensor:
    """Of the target's logit on a text and on padding between its special tokens."""
    base = torch.where(inputs.content, 0, inputs.values)
    fall = model(inputs.values, inputs.mask) - model(base, inputs.mask)
    return fall.gather(1, target[:, None])[:, 0]


def test_complete_and_zero_where_nothing_moves(model: TextClassifier, read: Tickets) -> None:
    inputs = read([0, 1, 2])
    found = integrated_gradients(model, embed(model, inputs), TARGET)
    missed = (found.scores.sum(1) - _difference(model, inputs, TARGET)).abs()
    assert (missed <= found.error + 1e-4).all()
    assert found.converged.all()
    assert (found.scores[~inputs.mask] == 0).all()
    assert (found.scores[:, 0] == 0).all()
    assert (found.scores[~inputs.content] == 0).all()
    assert not found.scores.requires_grad


@pytest.mark.parametrize("mode", ["clamp", "norm", "tanh"])
@pytest.mark.parametrize("steps", [1, 20, 32])
def test_texts_of_one_and_two_words_add_up(
    make_model: Callable[[AttentionConfig], TextClassifier], mode: ClipMode, steps: int
) -> None:
    model = make_model(AttentionConfig(temperature=2.0, clip=4.0, clip_mode=mode))
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(10, 4096, (6, 4), generator=generator)
    ids[:, 0], ids[:, 3] = 1, 2
    mask = torch.ones(6, 4, dtype=torch.bool)
    ids[:3, 2], mask[:3, 3] = 2, False
    content = torch.tensor([[False, True, False, False]] * 3 + [[False, True, True, False]] * 3)
    inputs = Inputs(ids, torch.zeros_like(ids), mask, content)
    target = torch.tensor([0, 1, 2, 3, 4, 5])
    found = integrated_gradients(model, embed(model, inputs), target, steps)
    difference = _difference(model, inputs, target)
    assert found.converged.all()
    size = torch.maximum(difference.abs(), 0.1 * found.scores.abs().sum(1))
    assert ((found.scores.sum(1) - difference).abs() <= TOLERANCE * size + 1e-4).all()
    assert found.points.max() > 4  # where it was needed, the path was refined


class _Jumping(nn.Module):
    """A logit that jumps by 1 in the middle of the path of each content position."""

    def run(self, x: torch.Tensor, mask: torch.Tensor) -> Pass:
        return Pass((x + (x > 0.3).float()).sum(1), x)


JUMPING = cast(AttentionModel, _Jumping())


def _embedded(values: torch.Tensor, content: torch.Tensor) -> Embedded:
    x = values[..., None].float()
    baseline = torch.where(content[..., None], 0.0, x)
    return Embedded(x, baseline, torch.ones_like(content), content)


ONE_TOKEN = _embedded(torch.tensor([[0, 1, 0]]), torch.tensor([[False, True, False]]))


def test_a_text_that_does_not_converge_is_told_and_the_work_is_bounded() -> None:
    checks: list[None] = []
    found = integrated_gradients(
        JUMPING, ONE_TOKEN, torch.tensor([0]), check=lambda: checks.append(None)
    )
    assert not found.converged.any()
    assert float(found.error) == pytest.approx(1, abs=1e-4)
    assert float(found.scores.sum()) == pytest.approx(1, abs=1e-4)
    assert int(found.points) <= MOST_POINTS
    assert len(checks) == MOST_HALVINGS


def test_long_texts_get_fewer_points_and_no_more_than_a_round_beyond_them() -> None:
    ids = torch.randint(1, 9, (1, 300), generator=torch.Generator().manual_seed(0))
    content = torch.ones_like(ids, dtype=torch.bool)
    content[:, [0, -1]] = False
    found = integrated_gradients(JUMPING, _embedded(ids, content), torch.tensor([0]))
    assert not found.converged.any()
    assert POINTS_FOR_ALL <= int(found.points) < MOST_POINTS


def test_what_the_check_raises_ends_the_work() -> None:
    def stop() -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        integrated_gradients(JUMPING, ONE_TOKEN, torch.tensor([0]), check=stop)


def test_scores_do_not_depend_on_the_other_texts_of_a_batch(
    model: TextClassifier, read: Tickets
) -> None:
    together = integrated_gradients(model, embed(model, read([0, 1, 2])), TARGET)
    for row in range(3):
        example = embed(model, read([row]))
        alone = integrated_gradients(model, example, TARGET[row : row + 1])
        assert torch.equal(together.scores[row, : example.x.shape[1]], alone.scores[0])
        assert torch.equal(together.error[row : row + 1], alone.error)
