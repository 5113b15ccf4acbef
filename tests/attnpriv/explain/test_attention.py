from __future__ import annotations

import numpy as np
import pytest
import torch

from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.explain.attention import (
    attention_received,
    recorded_value_norms,
    rollout,
    value_norms,
)
from attnpriv.models.text import TextClassifier


def test_attention_received_is_a_mean_over_visible_queries() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    weights = [
        torch.softmax(torch.randn(2, 3, 5, 5).masked_fill(~mask[:, None, None], -torch.inf), -1)
        for _ in range(7)
    ]
    received = attention_received(weights, mask)
    assert received.shape == (2, 7, 3, 5)
    torch.testing.assert_close(received.sum(-1), torch.ones(2, 7, 3))
    torch.testing.assert_close(received[1, 4, 2], weights[4][1, 2, :3].mean(0))
    assert (received[1, ..., 3:] == 0).all()


def _weights(layers: int, heads: int, tokens: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.rand(layers, heads, tokens, tokens, dtype=torch.float64).softmax(-1)


def test_rollout_equals_a_sum_over_all_paths() -> None:
    weights = _weights(2, 3, 5)
    mixed = weights.mean(1).numpy()
    expected = np.zeros((5, 5))
    for end in range(5):
        for start in range(5):
            for middle in range(5):
                late = 0.5 * mixed[1, end, middle] + 0.5 * (end == middle)
                early = 0.5 * mixed[0, middle, start] + 0.5 * (middle == start)
                expected[end, start] += late * early
    np.testing.assert_allclose(rollout(weights).numpy(), expected, atol=1e-12)


def test_rollout_keeps_rows_that_sum_to_one_and_tokens_that_see_only_themselves() -> None:
    torch.testing.assert_close(
        rollout(_weights(7, 2, 11)).sum(-1), torch.ones(11, dtype=torch.float64)
    )
    alone = torch.eye(3).expand(5, 2, 3, 3)
    torch.testing.assert_close(rollout(alone), torch.eye(3))


def test_value_norms_equal_the_projected_vectors_one_by_one() -> None:
    torch.manual_seed(1)
    values, output = torch.randn(3, 5, 2), torch.randn(7, 6)  # H 3, T 5, Dh 2, D 7
    norms = value_norms(values, output)
    for head in range(3):
        for token in range(5):
            alone = torch.zeros(6)
            alone[2 * head : 2 * head + 2] = values[head, token]
            assert float(norms[head, token]) == pytest.approx(float((output @ alone).norm()))


@pytest.mark.parametrize("shared", [False, True])
def test_norms_are_recorded_for_every_layer_in_order(shared: bool) -> None:
    """Also where one block serves all layers; after the block nothing is left in the model."""
    torch.manual_seed(2)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=17,
        dim=6,
        layers=3,
        heads=2,
        hidden_dim=5,
        max_length=7,
        num_labels=2,
        attention=AttentionConfig(),
        share_layers=shared,
    )
    model = TextClassifier(config).eval().requires_grad_(False)
    ids, mask = torch.arange(5)[None], torch.ones(1, 5, dtype=torch.bool)
    with recorded_value_norms(model) as norms:
        model.run(model.embed(ids), mask, need_maps=True)
    assert len(norms) == 3
    for layer in range(3):
        x = model.run_layers(model.embed(ids), mask, stop=layer)[0]
        attention = model.layers[layer].attention
        values = attention.qkv(x).chunk(3, dim=-1)[2].view(5, 2, 3)
        for head in range(2):
            own = attention.output.weight[:, 3 * head : 3 * head + 3]
            torch.testing.assert_close(norms[layer][0, head], (values[:, head] @ own.T).norm(dim=1))
    model.run(model.embed(ids), mask, need_maps=True)
    assert len(norms) == 3
