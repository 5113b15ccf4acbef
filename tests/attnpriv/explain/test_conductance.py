from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from captum.attr import LayerConductance
from torch import nn

from attnpriv.config import AttentionConfig
from attnpriv.explain.gradients import attention_conductance, path_ends
from attnpriv.models.text import TextClassifier

DOCUMENT, TARGET = 0, 4
Padded = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]


def _captums(model: TextClassifier, padded: Padded, steps: int) -> list[torch.Tensor]:
    """The conductance of every layer's weights, each by a run of its own."""
    ids, mask = padded([DOCUMENT])
    baseline, x = path_ends(model, ids, mask, 0)

    def forward(embedded: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        states, _ = model.encode(embedded, masks, need_weights=True)
        return model.head(model.pool(states, masks))

    return [
        LayerConductance(forward, block.attention.core.weights)
        .attribute(
            x, baselines=baseline, target=TARGET, additional_forward_args=(mask,), n_steps=steps
        )[0]
        .detach()
        for block in model.blocks
    ]


def _ours(model: TextClassifier, padded: Padded, steps: int) -> torch.Tensor:
    ids, mask = padded([DOCUMENT])
    return attention_conductance(model, ids, mask, TARGET, steps, 0)


def test_agrees_with_captums_layer_conductance(
    make_model: Callable[[AttentionConfig], TextClassifier], padded: Padded
) -> None:
    model = make_model(AttentionConfig(temperature=4.0))  # smooth, so that few steps suffice
    ours, theirs = _ours(model, padded, 100), _captums(model, padded, 800)
    assert ours.shape == (2, 3, ours.shape[-1], ours.shape[-1])
    for layer in range(2):
        tolerance = 0.02 * float(theirs[layer].abs().max())
        torch.testing.assert_close(ours[layer], theirs[layer], atol=tolerance, rtol=0)


def test_few_steps_come_close(model: TextClassifier, padded: Padded) -> None:
    exact, few = (_ours(model, padded, steps) for steps in (300, 50))
    assert float((few - exact).norm() / exact.norm()) < 0.1


def test_layers_that_share_a_block_are_told_apart(model: TextClassifier, padded: Padded) -> None:
    """The same model written with one block and with two equal ones."""
    apart = copy.deepcopy(model)
    apart.blocks = nn.ModuleList([copy.deepcopy(apart.blocks[0]) for _ in range(2)])
    shared = copy.deepcopy(apart)
    shared.config = replace(shared.config, share_layers=True)
    shared.blocks = nn.ModuleList([apart.blocks[0]])
    ours = _ours(shared, padded, 20)
    torch.testing.assert_close(ours, _ours(apart, padded, 20))
    assert not torch.allclose(ours[0], ours[1], atol=1e-4)


def test_what_does_not_reach_the_answer_has_none(model: TextClassifier, padded: Padded) -> None:
    """A head whose part of the projection is zero adds nothing, whatever it attends to."""
    deaf = copy.deepcopy(model)
    deaf.blocks[1].attention.output.weight[:, 5:10] = 0.0
    conductance = _ours(deaf, padded, 8)
    assert (conductance[1, 1] == 0).all()
    assert (conductance[1, [0, 2]].abs().sum((1, 2)) > 0).all()
