from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from captum.attr import LayerConductance
from torch import nn

from attnpriv.config import AttentionConfig
from attnpriv.explain.gradients import attention_conductance
from attnpriv.modality import Inputs, embed
from attnpriv.models.text import TextClassifier

DOCUMENT, TARGET = 0, 4
Tickets = Callable[[Sequence[int]], Inputs]


def _captums(model: TextClassifier, read: Tickets, steps: int) -> list[torch.Tensor]:
    """The conductance of every layer's weights, each by a run of its own."""
    example = embed(model, read([DOCUMENT]))

    def forward(embedded: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return model.run(embedded, masks, need_maps=True).outputs

    return [
        LayerConductance(forward, block.attention.core.weights)
        .attribute(
            example.x,
            baselines=example.baseline,
            target=TARGET,
            additional_forward_args=(example.mask,),
            n_steps=steps,
        )[0]
        .detach()
        for block in model.blocks
    ]


def _ours(model: TextClassifier, read: Tickets, steps: int) -> torch.Tensor:
    return attention_conductance(model, embed(model, read([DOCUMENT])), TARGET, steps)


def test_agrees_with_captums_layer_conductance(
    make_model: Callable[[AttentionConfig], TextClassifier], read: Tickets
) -> None:
    model = make_model(AttentionConfig(temperature=4.0))  # smooth, so that few steps suffice
    ours, theirs = _ours(model, read, 100), _captums(model, read, 800)
    assert ours.shape == (2, 3, read([DOCUMENT]).values.shape[1], ours.shape[-1])
    for layer in range(2):
        tolerance = 0.02 * float(theirs[layer].abs().max())
        torch.testing.assert_close(ours[layer], theirs[layer], atol=tolerance, rtol=0)


def test_few_steps_come_close(model: TextClassifier, read: Tickets) -> None:
    exact, few = (_ours(model, read, steps) for steps in (300, 50))
    assert float((few - exact).norm() / exact.norm()) < 0.1


def test_layers_that_share_a_block_are_told_apart(model: TextClassifier, read: Tickets) -> None:
    """The same model written with one block and with two equal ones."""
    apart = copy.deepcopy(model)
    apart.blocks = nn.ModuleList([copy.deepcopy(apart.blocks[0]) for _ in range(2)])
    shared = copy.deepcopy(apart)
    shared.config = replace(shared.config, share_layers=True)
    shared.blocks = nn.ModuleList([apart.blocks[0]])
    ours = _ours(shared, read, 20)
    torch.testing.assert_close(ours, _ours(apart, read, 20))
    assert not torch.allclose(ours[0], ours[1], atol=1e-4)


def test_what_does_not_reach_the_answer_has_none(model: TextClassifier, read: Tickets) -> None:
    """A head whose part of the projection is zero adds nothing, whatever it attends to."""
    deaf = copy.deepcopy(model)
    deaf.blocks[1].attention.output.weight[:, 5:10] = 0.0
    conductance = _ours(deaf, read, 8)
    assert (conductance[1, 1] == 0).all()
    assert (conductance[1, [0, 2]].abs().sum((1, 2)) > 0).all()
