"""The intervals that both audits share, against SciPy, NumPy and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm

from attnpriv.estimates import (
    UNDEFINED,
    Z_95,
    Estimate,
    auc_interval,
    holm,
    middle_95,
    percentile_interval,
    to_plain,
    wilson,
)


def test_wilson_by_hand() -> None:
    share = wilson(8, 10)  # centre 0.716738, half-width 0.226579
    assert share.value == 0.8
    assert (share.low, share.high) == pytest.approx((0.490159, 0.943317), abs=1e-5)
    assert wilson(0, 0) == UNDEFINED == Estimate(None, None, None)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 11, 100, 331, 1001])
def test_wilson_is_scipys_bit_for_bit(n: int) -> None:
    for successes in {0, 1, n // 3, n // 2, n - 1, n}:
        found, expected = (
            wilson(successes, n),
            binomtest(successes, n).proportion_ci(0.95, "wilson"),
        )
        assert (found.low, found.high) == (expected.low, expected.high)
    assert norm.ppf(0.975) == Z_95


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=90))
def test_quantiles_are_numpys_bit_for_bit(values: list[float]) -> None:
    assert middle_95(values) == tuple(np.quantile(values, (0.025, 0.975)))


def test_a_percentile_interval_leaves_out_what_is_undefined() -> None:
    resamples = [*range(41), math.nan, math.inf, -math.inf]
    assert percentile_interval(20.0, resamples) == Estimate(20.0, 1.0, 39.0)
    assert percentile_interval(20.0, np.array(resamples)) == Estimate(20.0, 1.0, 39.0)
    for value, few in ((math.nan, [1.0]), (math.inf, [1.0]), (1.0, []), (1.0, [math.nan])):
        assert percentile_interval(value, few) == UNDEFINED


def test_every_number_of_an_interval_is_a_plain_float() -> None:
    found = percentile_interval(np.float64(0.5), np.arange(7.0))
    assert [type(each) for each in (found.value, found.low, found.high)] == [float] * 3


def test_an_area_with_no_variance_is_not_certain() -> None:
    assert auc_interval(1.0, 0.0, 10) == Estimate(1.0, 0.7, 1.0)
    assert auc_interval(0.0, 0.0, 2) == Estimate(0.0, 0.0, 1.0)
    found = auc_interval(0.75, 0.01, 10)
    assert (found.low, found.high) == pytest.approx((0.75 - 0.1959964, 0.75 + 0.1959964))
    assert auc_interval(0.9, 0.01, 10).high == 1.0


def test_holm_by_hand() -> None:
    """0.01 × 4, 0.02 × 3, 0.03 × 2 (not below its forerunner), 0.4 × 1."""
    assert holm([0.03, 0.01, 0.4, 0.02]) == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_order_and_lies_between_the_p_value_and_bonferronis() -> None:
    for seed in range(20):
        p_values = np.random.default_rng(seed).random(11) ** 3
        adjusted, order = np.array(holm(p_values.tolist())), p_values.argsort()
        assert (np.diff(adjusted[order]) >= 0).all()
        assert (p_values <= adjusted).all()
        assert (adjusted <= np.minimum(1, 11 * p_values)).all()
        assert adjusted.min() == pytest.approx(min(1, 11 * p_values.min()))


def test_plain_json_has_no_nan_and_no_infinity() -> None:
    value = {1: (math.nan, 2.5), "a": [math.inf, {"b": -math.inf}], "c": None, "d": "NaN"}
    assert to_plain(value) == {"1": [None, 2.5], "a": [None, {"b": None}], "c": None, "d": "NaN"}
