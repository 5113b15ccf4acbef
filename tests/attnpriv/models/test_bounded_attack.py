"""Gradient ascent on the token vectors of a whole encoder, against the bound on each layer's rows.

The same attack on minilm, which has no bound, is the positive control: it must go far beyond.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from attnpriv import guarantees as g
from attnpriv.models.pretrained import classifier_of, open_encoder
from attnpriv.models.text import TextClassifier

TOKENS, SENSITIVE = 12, 3
STEPS, RATE = 40, 0.05


def model_of(encoder: str) -> TextClassifier:
    return classifier_of(open_encoder(encoder), 2).eval().requires_grad_(False)


def rows_of(model: TextClassifier, x: Tensor) -> list[Tensor]:
    """The weights of every layer, [B, H, T, T]."""
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    return [each.weights for each in model.run(x, mask, need_maps=True).maps]


def attack(model: TextClassifier, layer: int) -> tuple[float, float, float]:
    """The largest and smallest weight and the largest mass that ascent finds in a layer.

    One input goes for each goal, all heads at once; the vectors may be any, not only words.
    """
    generator = torch.Generator().manual_seed(layer)
    ids = torch.randint(2000, 20000, (3, TOKENS), generator=generator)
    x = model.embed(ids).detach().requires_grad_(True)
    optimizer = torch.optim.Adam([x], lr=RATE)
    found = [0.0, 1.0, 0.0]
    for _ in range(STEPS):
        rows = rows_of(model, x)[layer]
        most, least = rows[0].amax((-2, -1)), rows[1].amin((-2, -1))
        mass = rows[2, ..., :SENSITIVE].sum(-1).amax(-1)
        found = [
            max(found[0], float(most.max().detach())),
            min(found[1], float(least.min().detach())),
            max(found[2], float(mass.max().detach())),
        ]
        loss = least.log().sum() - most.log().sum() - mass.log().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found[0], found[1], found[2]


@pytest.fixture(scope="module")
def bounded() -> TextClassifier:
    return model_of("minilm-bounded")


@pytest.mark.parametrize("layer", range(6))
def test_no_input_takes_a_layer_of_the_shipped_encoder_beyond_its_bound(
    bounded: TextClassifier, layer: int
) -> None:
    attention = bounded.config.attention
    c, tau = attention.logit_bound, attention.temperature
    low, high = g.weight_bounds(c, tau, TOKENS)
    mass = g.mass_bound(c, tau, TOKENS, SENSITIVE)
    most, least, found = attack(bounded, layer)
    assert most <= high * (1 + 1e-5)
    assert least >= low * (1 - 1e-5)
    assert found <= mass * (1 + 1e-5)
    # The bound is no empty word: the attack comes near it in every layer.
    assert most > 0.8 * high
    assert found > 0.8 * mass


def test_the_attack_goes_beyond_the_bound_where_there_is_none() -> None:
    plain = model_of("minilm")
    high = g.weight_bounds(0.97, 1.0, TOKENS)[1]
    mass = g.mass_bound(0.97, 1.0, TOKENS, SENSITIVE)
    for layer in (0, 5):
        most, _, found = attack(plain, layer)
        assert most > 1.5 * high
        assert found > 1.3 * mass
