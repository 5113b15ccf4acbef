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
    special_tokens,
)
from attnpriv.models.text import TextClassifier

Padded = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]


def _batch(padded: Padded) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask = padded([0, 1, 2])
    return ids, mask, torch.tensor([1, 4, 7])


def _riemann(
    model: TextClassifier, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor, steps: int
) -> torch.Tensor:
    """Integrated gradients by the midpoint rule, one point after the other."""
    x = model.embed(ids)
    base = model.embed(torch.where(special_tokens(mask), ids, 0))
    total = torch.zeros_like(x)
    for step in range(steps):
        at = (base + (step + 0.5) / steps * (x - base)).requires_grad_()
        logits = model.forward_embedded(at, mask).gather(1, target[:, None]).sum()
        total += torch.autograd.grad(logits, at)[0]
    return ((x - base) * total / steps).sum(-1)


def test_agrees_with_a_riemann_sum(model: TextClassifier, padded: Padded) -> None:
    ids, mask, target = _batch(padded)
    ours = integrated_gradients(model, ids, mask, target, steps=300).scores
    expected = _riemann(model, ids, mask, target, steps=600)
    torch.testing.assert_close(ours, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def _difference(
    model: TextClassifier, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor
) -> torch.Tensor:
    """Of the target's logit on a text and on padding between its special tokens."""
    base = torch.where(special_tokens(mask), ids, 0)
    return (model(ids, mask) - model(base, mask)).gather(1, target[:, None])[:, 0]


def test_complete_and_zero_where_nothing_moves(model: TextClassifier, padded: Padded) -> None:
    ids, mask, target = _batch(padded)
    found = integrated_gradients(model, ids, mask, target)
    missed = (found.scores.sum(1) - _difference(model, ids, mask, target)).abs()
    assert (missed <= found.error + 1e-4).all()
    assert found.converged.all()
    assert (found.scores[~mask] == 0).all()
    assert (found.scores[special_tokens(mask)] == 0).all()
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
    target = torch.tensor([0, 1, 2, 3, 4, 5])
    found = integrated_gradients(model, ids, mask, target, steps)
    difference = _difference(model, ids, mask, target)
    assert found.converged.all()
    size = torch.maximum(difference.abs(), 0.1 * found.scores.abs().sum(1))
    assert ((found.scores.sum(1) - difference).abs() <= TOLERANCE * size + 1e-4).all()
    assert found.points.max() > 4  # where it was needed, the path was refined


class _Jumping(nn.Module):
    """One content token, and a logit that jumps by 1 in the middle of its path."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return ids[..., None].float()

    def forward_embedded(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (x + (x > 0.3).float()).sum(1)


def test_a_text_that_does_not_converge_is_told_and_the_work_is_bounded() -> None:
    checks: list[None] = []
    ids, mask = torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.bool)
    found = integrated_gradients(
        cast(TextClassifier, _Jumping()),
        ids,
        mask,
        torch.tensor([0]),
        check=lambda: checks.append(None),
    )
    assert not found.converged.any()
    assert float(found.error) == pytest.approx(1, abs=1e-4)
    assert float(found.scores.sum()) == pytest.approx(1, abs=1e-4)
    assert int(found.points) <= MOST_POINTS
    assert len(checks) == MOST_HALVINGS


def test_long_texts_get_fewer_points_and_no_more_than_a_round_beyond_them() -> None:
    ids = torch.randint(1, 9, (1, 300), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids, dtype=torch.bool)
    found = integrated_gradients(cast(TextClassifier, _Jumping()), ids, mask, torch.tensor([0]))
    assert not found.converged.any()
    assert POINTS_FOR_ALL <= int(found.points) < MOST_POINTS


def test_what_the_check_raises_ends_the_work() -> None:
    def stop() -> None:
        raise TimeoutError

    ids, mask = torch.tensor([[0, 1, 0]]), torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(TimeoutError):
        integrated_gradients(
            cast(TextClassifier, _Jumping()), ids, mask, torch.tensor([0]), check=stop
        )


def test_scores_do_not_depend_on_the_other_texts_of_a_batch(
    model: TextClassifier, padded: Padded
) -> None:
    ids, mask, target = _batch(padded)
    together = integrated_gradients(model, ids, mask, target)
    for row in range(3):
        n = int(mask[row].sum())
        alone = integrated_gradients(
            model, ids[row : row + 1, :n], mask[row : row + 1, :n], target[row : row + 1]
        )
        assert torch.equal(together.scores[row, :n], alone.scores[0])
        assert torch.equal(together.error[row : row + 1], alone.error)


def test_special_tokens_are_the_ends() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    expected = torch.tensor([[True, False, False, True], [True, True, False, False]])
    assert torch.equal(special_tokens(mask), expected)
