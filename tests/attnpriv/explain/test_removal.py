from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from captum.attr import FeatureAblation

from attnpriv.config import AttentionConfig
from attnpriv.explain.gradients import integrated_gradients
from attnpriv.explain.removal import leave_one_out, occlusion, probability_drops, removal_effects
from attnpriv.modality import Inputs, embed
from attnpriv.models.text import TextClassifier

Tickets = Callable[[Sequence[int]], Inputs]


def test_agrees_with_captums_feature_ablation(model: TextClassifier, read: Tickets) -> None:
    inputs = read([0, 1, 2])
    target = torch.tensor([1, 4, 7])
    ours = occlusion(model, embed(model, inputs), target)
    theirs = FeatureAblation(model).attribute(
        inputs.values,
        baselines=torch.where(inputs.content, 0, inputs.values),
        target=target,
        additional_forward_args=(inputs.mask,),
    )
    content = inputs.content
    torch.testing.assert_close(ours[content], theirs[content].float(), atol=1e-5, rtol=1e-4)
    assert (ours[~content] == 0).all()
    assert (ours[content] != 0).all()


def test_effects_equal_one_forward_pass_an_experiment(model: TextClassifier, read: Tickets) -> None:
    inputs = read([0, 1])
    ids, mask = inputs.values, inputs.mask
    target = torch.tensor([2, 5])
    drawn = torch.rand(2, 5, mask.shape[1], generator=torch.Generator().manual_seed(0)) < 0.4
    removed = drawn & inputs.content[:, None]
    effects = removal_effects(model, embed(model, inputs), target, removed)
    for row in range(2):
        for experiment in range(5):
            changed = ids[row].clone()
            changed[removed[row, experiment]] = 0
            fall = model(ids[row][None], mask[row][None]) - model(changed[None], mask[row][None])
            expected = float(fall[0, target[row]])
            assert float(effects[row, experiment]) == pytest.approx(expected, abs=1e-5)


def test_removing_everything_has_the_effect_that_integrated_gradients_share_out(
    make_model: Callable[[AttentionConfig], TextClassifier], read: Tickets
) -> None:
    model = make_model(AttentionConfig(temperature=4.0))  # smooth, so that few points suffice
    example = embed(model, read([0]))
    target = torch.tensor([3])
    effect = float(removal_effects(model, example, target, example.content[:, None]))
    shared_out = float(integrated_gradients(model, example, target, 300).scores.sum())
    assert shared_out == pytest.approx(effect, rel=0.02)


def test_leave_one_out_equals_one_forward_pass_a_token(
    model: TextClassifier, read: Tickets
) -> None:
    inputs = read([0, 1])
    ids, mask = inputs.values, inputs.mask
    target = torch.tensor([2, 5])
    measured = leave_one_out(model, embed(model, inputs), target)
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


def test_a_hidden_token_leaves_no_trace(model: TextClassifier, read: Tickets) -> None:
    """Under the mask it may be any token: neither attention nor pooling sees it."""
    inputs = read([0])
    example, target = embed(model, inputs), torch.tensor([3])
    masks = inputs.mask.clone()
    masks[0, 3] = False
    other = inputs.values.clone()
    other[0, 3] = 77
    drop = probability_drops(model, example, target, masks[:, None])
    whole = model(inputs.values, inputs.mask).softmax(-1)[0, 3]
    hidden = model(other, masks).softmax(-1)[0, 3]
    torch.testing.assert_close(drop[0, 0], whole - hidden)
