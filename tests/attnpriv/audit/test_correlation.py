from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import spearmanr

from attnpriv.audit.correlation import RankCorrelations


def test_each_value_is_spearmans_correlation_ties_included() -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 5, m) * 1.0, rng.normal(size=m).round(1)) for m in (3, 7, 11, 23)]
    statistics = RankCorrelations(4, 50, seed=0)
    for row, (a, b) in enumerate(pairs):
        statistics.add(row, row, a, b)
    expected = [spearmanr(a, b).statistic for a, b in pairs]
    np.testing.assert_allclose(statistics.values, expected)
    result = statistics.result(100)
    assert result.mean.value == pytest.approx(np.mean(expected))
    assert result.documents == 4


def test_the_p_value_is_that_of_all_orders() -> None:
    a, b = np.arange(6.0), np.array([1.0, 0.0, 2.0, 3.0, 5.0, 4.0])
    statistics = RankCorrelations(1, 4000, seed=0)
    statistics.add(0, 0, a, b)
    orders = [spearmanr(a, order).statistic for order in permutations(b)]
    exact = np.mean(np.abs(orders) >= spearmanr(a, b).statistic - 1e-9)
    assert statistics.result(10).p_value == pytest.approx(exact, abs=0.015)  # 4 standard errors


def test_documents_without_a_ranking_are_left_out() -> None:
    statistics = RankCorrelations(4, 20, seed=0)
    statistics.add(0, 0, np.ones(5), np.arange(5.0))
    statistics.add(1, 1, np.array([2.0]), np.array([3.0]))
    statistics.add(2, 2, np.zeros(0), np.zeros(0))
    empty = statistics.result(10)
    assert (empty.documents, empty.mean.value, empty.p_value) == (0, None, None)
    statistics.add(3, 3, np.arange(5.0), np.arange(5.0))
    result = statistics.result(10)
    assert (result.documents, result.mean.value) == (1, pytest.approx(1.0))


def test_neither_order_nor_place_matters() -> None:
    rng = np.random.default_rng(1)
    pairs = [rng.normal(size=(2, 9)) for _ in range(5)]
    forward, backward = (RankCorrelations(5, 30, seed=3) for _ in range(2))
    for row in range(5):
        forward.add(row, row, *pairs[row])
        backward.add(4 - row, 4 - row, *pairs[4 - row])
    assert forward.result(10).mean == backward.result(10).mean
    np.testing.assert_allclose(forward.shuffled, backward.shuffled)
