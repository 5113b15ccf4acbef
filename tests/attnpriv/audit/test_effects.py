from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import binom

from attnpriv.audit.effects import (
    CHANGE,
    KINDS,
    MEASURES,
    SWAP,
    EffectStatistics,
    answer_changes,
    corrected,
)


def test_changes_by_hand() -> None:
    before = np.array([0.7, 0.2, 0.1])
    after = np.array([[0.4, 0.5, 0.1], [0.9, 0.1, 0.0], [0.7, 0.2, 0.1]])
    changes = answer_changes(before, after)
    np.testing.assert_allclose(changes[:, 0], [0.3, -0.2, 0.0], atol=1e-12)
    np.testing.assert_allclose(changes[:, 1], [0.3, 0.2, 0.0], atol=1e-12)
    assert changes[:, 2].tolist() == [1, 0, 0]
    assert answer_changes(np.array([1.0, 0.0]), np.array([0.0, 1.0])).tolist() == [1, 1, 1, 1]


def test_divergence_is_scipys_in_bits() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.dirichlet(np.ones(7), size=(2, 11))
    measured = answer_changes(before, after)[:, 3]
    expected = [jensenshannon(p, q, base=2) ** 2 for p, q in zip(before, after, strict=True)]
    np.testing.assert_allclose(measured, expected, atol=1e-12)


def _statistics(
    excess: list[float], rows: list[int], types: list[str], permutations: int, seed: int = 0
) -> EffectStatistics:
    """Entities whose swaps change the answer by 1 more or less than words do."""
    effects = np.zeros((len(rows), 3, KINDS, MEASURES))
    effects[:, 0, SWAP, CHANGE] = excess
    origins, documents = [*zip(rows, types, strict=True)], range(max(rows) + 1)
    return EffectStatistics(documents, origins, effects, Counter(types), permutations, 20, seed)


def test_the_p_value_is_that_of_all_signs_of_whole_documents() -> None:
    rng = np.random.default_rng(4)
    rows = [0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7]
    excess = rng.normal(0.4, 1, len(rows))
    sums = np.bincount(rows, excess)
    exact = np.mean(
        [np.dot(signs, sums) >= sums.sum() - 1e-9 for signs in product((-1, 1), repeat=8)]
    )
    effect = _statistics(excess.tolist(), rows, ["A"] * len(rows), 8000).effect(None)
    assert 0.02 < exact < 0.5
    assert effect.p_value == pytest.approx(exact, abs=4 * (exact / 8000) ** 0.5)
    assert effect.excess.value == pytest.approx(excess.mean())
    assert (effect.entities, effect.documents) == (12, 8)


def test_ties_that_rounding_turns_leave_the_p_value() -> None:
    rng = np.random.default_rng(3)
    exact = np.array([0.25] * 9 + [-0.25] * 4 + [0.0] * 7)  # many draws have the observed sum
    rows, types = list(range(20)), ["A"] * 20
    expected = _statistics(exact.tolist(), rows, types, 1000).effect(None).p_value
    for _ in range(10):
        rounded = exact + 2.0**-23 * rng.integers(-1, 2, 20)
        assert _statistics(rounded.tolist(), rows, types, 1000).effect(None).p_value == expected


@pytest.mark.exhaustive
def test_under_the_null_any_type_is_flagged_as_seldom_as_stated() -> None:
    """Entities of a document share their sign: who flips single entities, or does not correct for
    the five types, flags too often and fails.
    """
    flagged = uncorrected = 0
    for draw in range(100):
        rng = np.random.default_rng(draw)
        rows = np.repeat(np.arange(60), 4)
        excess = rng.normal(size=60)[rows] + 0.1 * rng.normal(size=240)
        types = np.array(list("ABCDE"))[rows % 5].tolist()
        statistics = _statistics(excess.tolist(), rows.tolist(), types, 199, seed=draw)
        effects = corrected([statistics.effect(kind) for kind in "ABCDE"])
        flagged += any(effect.flagged for effect in effects)
        uncorrected += any((effect.p_value or 1) < 0.05 for effect in effects)
    assert flagged <= binom.isf(0.005, 100, 0.05)  # 11
    assert uncorrected > binom.isf(0.005, 100, 0.05)
