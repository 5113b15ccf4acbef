"""The mechanisms audited by attack: worst-case pairs, many draws, and controls that must fail.

A lower bound above the charge refutes it. A bound far below it would say little about the charge,
so where a mechanism uses up its ε, the bound must come close.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from attnpriv import guarantees
from attnpriv.attention import attention_weights
from attnpriv.config import AttentionConfig, ClipMode
from attnpriv.randomness import StepKeys, Stream
from attnpriv.release import BoundedDraw, RandomisedResponse
from attnpriv.release.cost import MICRO
from attnpriv.release.draws import whole_weights
from tests.attnpriv.release.empirical import Outcomes, epsilon_lower_bound, outcomes

DRAWS = [100_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)]
TIGHT = 0.8
C, TAU = 2.0, 2.0  # two weights of a row differ by a factor of e² at most

Pair = tuple[Sequence[int], Sequence[int]]


def lower_bound(pair: Pair, draws: int) -> float:
    """What so many draws of each of two inputs prove."""
    first, second = (
        outcomes(weights, draws, Stream(StepKeys.from_seed(seed).key))
        for seed, weights in enumerate(pair)
    )
    return epsilon_lower_bound(first, second)


def responses(prior: Sequence[float], epsilon: float) -> Pair:
    """Randomised response to two texts with different best answers, both of them candidates."""
    mechanism = RandomisedResponse(prior, round(epsilon * MICRO))
    first, second, *_ = mechanism.candidates
    return mechanism.weights(first), mechanism.weights(second)


def bounded(redacted: Sequence[float], epsilon: float) -> Pair:
    """Bounded draws of two texts, of which one puts everything on the first outcome."""
    mechanism = BoundedDraw(redacted, round(epsilon * MICRO))
    everything = [1.0] + [0.0] * (len(redacted) - 1)
    return mechanism.weights(everything), mechanism.weights([1 - each for each in everything])


def rows(mode: ClipMode, *logits: Sequence[float]) -> Pair:
    """The weights of one query over keys with these logits, through the attention layer."""
    config = AttentionConfig(temperature=TAU, clip=C, clip_mode=mode)
    query, mask = torch.ones(1, 1, 1, 1), torch.ones(1, len(logits[0]), dtype=torch.bool)
    first, second = (
        attention_weights(query, torch.tensor(each).view(1, 1, -1, 1), mask, config).flatten()
        for each in logits
    )
    return whole_weights("row", first.tolist()), whole_weights("row", second.tolist())


def one_hidden_key(mode: ClipMode) -> Pair:
    """The hidden key is far above the three others, and far below them."""
    return rows(mode, [50.0, 2.0, 2.0, 2.0], [-50.0, 2.0, 2.0, 2.0])


TWO_OF_SIX = ([50.0, -50.0, -2.0, -2.0, -2.0, -2.0], [-50.0, 50.0, -2.0, -2.0, -2.0, -2.0])


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize(
    ("pair", "charged"),
    [
        (responses([0.6, 0.4], 0.5), 0.5),
        (responses([1.0] * 32, 3.0), 3.0),
        (bounded([0.25] * 4, 1.0), 1.0),
        (bounded([0.1, 0.3, 0.6], 3.0), 3.0),
        (rows("clamp", *TWO_OF_SIX), guarantees.span_selection_epsilon(C, TAU, 6, 2)),
        (one_hidden_key("clamp"), guarantees.span_selection_epsilon(C, TAU, 4, 1)),
    ],
    ids=["response", "response of 32", "bounded", "bounded, uneven", "two keys", "one key"],
)
def test_what_draws_prove_is_just_below_what_is_charged(
    pair: Pair, charged: float, draws: int
) -> None:
    assert TIGHT * charged < lower_bound(pair, draws) <= charged


@pytest.mark.parametrize("draws", DRAWS)
def test_an_answer_from_the_redacted_text_alone_proves_nothing(draws: int) -> None:
    mechanism = RandomisedResponse([0.05, 0.9, 0.05], MICRO)
    assert lower_bound((mechanism.weights(0), mechanism.weights(2)), draws) == 0
    same = BoundedDraw([0.2, 0.3, 0.5], MICRO).weights([0.5, 0.3, 0.2])
    assert lower_bound((same, same), draws) < 0.01


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("mechanism", [responses, bounded])
def test_half_of_the_noise_is_found(mechanism: object, draws: int) -> None:
    charged = 1.0
    assert lower_bound(mechanism([0.25] * 4, 2 * charged), draws) > charged  # type: ignore[operator]


@pytest.mark.parametrize("draws", DRAWS)
def test_two_principals_who_share_their_answers_are_found_unless_both_pay(draws: int) -> None:
    pair, charged = responses([0.5, 0.5], 1.0), 1.0
    shared = []
    for number, weights in enumerate(pair):
        streams = [Stream(StepKeys.from_seed(10 * number + who).key) for who in (1, 2)]
        one, other = (outcomes(weights, draws, stream) for stream in streams)
        shared.append(2 * one + other)
    proved = epsilon_lower_bound(*shared)
    assert charged < TIGHT * 2 * charged < proved <= 2 * charged


def permute_and_flip(row: Sequence[int], draws: int, seed: int) -> Outcomes:
    """Draw one of two keys: in random order, each with the chance of its weight over the largest.

    Source: McKenna and Sheldon 2020, arXiv:2010.12603.
    """
    rng = np.random.default_rng(seed)
    accept = np.array(row) / max(row)
    first = rng.integers(0, 2, draws)
    taken = rng.random(draws) < accept[first]
    # If the first is refused it is the smaller one, and the other is taken for sure.
    return np.where(taken, first, 1 - first)


@pytest.mark.parametrize("draws", DRAWS)
def test_permute_and_flip_charged_as_a_draw_from_the_row_is_found(draws: int) -> None:
    pair = rows("clamp", [2.0, -2.0], [-2.0, 2.0])
    charged = guarantees.selection_epsilon(C, TAU, 2)
    assert lower_bound(pair, draws) <= charged
    flipped = [permute_and_flip(row, draws, seed) for seed, row in enumerate(pair)]
    proved = epsilon_lower_bound(*flipped)
    assert charged < proved <= math.log(2 * math.exp(2 * C / TAU) - 1)


@pytest.mark.parametrize("draws", DRAWS)
def test_the_clip_relative_charged_as_if_one_logit_changed_is_found(draws: int) -> None:
    pair = one_hidden_key("relative")
    proved = lower_bound(pair, draws)
    assert proved > guarantees.span_selection_epsilon(C, TAU, 4, 1)
    assert TIGHT * guarantees.selection_epsilon(C, TAU, 4) < proved
    assert proved <= guarantees.selection_epsilon(C, TAU, 4)


def test_bounds_are_right_about_nineteen_in_twenty_correct_mechanisms() -> None:
    rng = np.random.default_rng(0)
    epsilon = 1.0
    chances = np.array([math.exp(epsilon), 1.0]) / (1 + math.exp(epsilon))
    proved = [
        epsilon_lower_bound(rng.choice(2, 500, p=chances), rng.choice(2, 500, p=chances[::-1]))
        for _ in range(300)
    ]
    assert np.mean(np.array(proved) > epsilon) <= 0.05
