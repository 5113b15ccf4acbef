from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from captum.attr import FeatureAblation

from attnpriv.config import AttentionConfig
from attnpriv.explain.gradients import integrated_gradients, special_tokens
from attnpriv.explain.removal import (
    class_probabilities,
    leave_one_out,
    occlusion,
    removal_effects,
)
from attnpriv.models.text import TextClassifier

Padded = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]


def test_agrees_with_captums_feature_ablation(model: TextClassifier, padded: Padded) -> None:
    ids, mask = padded([0, 1, 2])
    target = torch.tensor([1, 4, 7])
    ours = occlusion(model, ids, mask, target, 0)
    theirs = FeatureAblation(model).attribute(
        ids,
        baselines=torch.where(special_tokens(mask), ids, 0),
        target=target,
        additional_forward_args=(mask,),
    )
    content = mask & ~special_tokens(mask)
    torch.testing.assert_close(ours[content], theirs[content].float(), atol=1e-5, rtol=1e-4)
    assert (ours[~content] == 0).all()
    assert (ours[content] != 0).all()


def test_effects_equal_one_forward_pass_an_experiment(
    model: TextClassifier, padded: Padded
) -> None:
    ids, mask = padded([0, 1])
    target = torch.tensor([2, 5])
    drawn = torch.rand(2, 5, mask.shape[1], generator=torch.Generator().manual_seed(0)) < 0.4
    removed = drawn & (mask & ~special_tokens(mask))[:, None]
    effects = removal_effects(model, ids, mask, target, removed, 0)
    for row in range(2):
        for experiment in range(5):
            changed = ids[row].clone()
            changed[removed[row, experiment]] = 0
            fall = model(ids[row][None], mask[row][None]) - model(changed[None], mask[row][None])
            expected = float(fall[0, target[row]])
            assert float(effects[row, experiment]) == pytest.approx(expected, abs=1e-5)


def test_removing_everything_has_the_effect_that_integrated_gradients_share_out(
    make_model: Callable[[AttentionConfig], TextClassifier], padded: Padded
) -> None:
    model = make_model(AttentionConfig(temperature=4.0))  # smooth, so that few points suffice
    ids, mask = padded([0])
    target, removed = torch.tensor([3]), torch.zeros(1, 1, mask.shape[1], dtype=torch.bool)
    removed[..., 1:-1] = True
    effect = float(removal_effects(model, ids, mask, target, removed, 0))
    shared_out = float(integrated_gradients(model, ids, mask, target, 300).scores.sum())
    assert shared_out == pytest.approx(effect, rel=0.02)


def test_leave_one_out_equals_one_forward_pass_a_token(
    model: TextClassifier, padded: Padded
) -> None:
    ids, mask = padded([0, 1])
    target = torch.tensor([2, 5])
    measured = leave_one_out(model, ids, mask, target)
    for row in range(2):
        n = int(mask[row].sum())
        whole = model(ids[row : row + 1], mask[row : row + 1]).softmax(-1)[0, target[row]]
        for token in range(n):
            without = mask[row : row + 1].clone()
            without[0, token] = False
            p = model(ids[row : row + 1], without).softmax(-1)[0, target[row]]
            expected = float(whole - p) if 0 < token < n - 1 else 0.0
            assert float(measured[row, token]) == pytest.approx(expected, abs=2e-6)
        assert (measured[row, n:] == 0).all()


def test_a_removed_token_leaves_no_trace(model: TextClassifier, padded: Padded) -> None:
    """Under the mask it may be any token: neither attention nor pooling sees it."""
    ids, mask = padded([0])
    mask[0, 3] = False
    other = ids.clone()
    other[0, 3] = 77
    torch.testing.assert_close(
        class_probabilities(model, ids, mask), class_probabilities(model, other, mask)
    )
