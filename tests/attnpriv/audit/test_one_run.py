from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from attnpriv.audit.leakage import one_run_epsilon_ceiling, one_run_epsilon_lower_bound
from attnpriv.errors import InputError


def _reference(m: int, r: int, v: int, delta: float, eps: float) -> float:
    """The p-value as a plain loop over probabilities of single counts."""
    q = math.exp(eps) / (1 + math.exp(eps))
    pmf = [binom.pmf(x, r, q) for x in range(r + 1)]
    beta = sum(pmf[v:])
    alpha = max(sum(pmf[v - i : v]) / i for i in range(1, v + 1))
    return min(1.0, beta + 2 * m * delta * alpha)


@pytest.mark.parametrize(
    ("m", "r", "v", "expected"),
    [(1000, 100, 100, 3.465), (1000, 100, 95, 2.165), (10000, 1000, 900, 2.015)],
)
def test_published_values(m: int, r: int, v: int, expected: float) -> None:
    assert round(one_run_epsilon_lower_bound(m, r, v, 1e-5), 3) == expected


@settings(max_examples=25, deadline=None)
@given(r=st.integers(5, 60), share=st.floats(0.7, 1.0), delta=st.sampled_from([0.0, 1e-5, 1e-3]))
def test_the_bound_is_where_the_p_value_crosses(r: int, share: float, delta: float) -> None:
    v = round(r * share)
    bound = one_run_epsilon_lower_bound(canaries=2 * r, guesses=r, correct=v, delta=delta)
    assert 0 <= bound <= one_run_epsilon_ceiling(r) + 1e-9
    assert _reference(2 * r, r, v, delta, bound + 1e-6) > 0.05
    if bound > 0:
        assert _reference(2 * r, r, v, delta, bound) <= 0.05 + 1e-9


def test_a_perfect_attack_reaches_the_ceiling_without_delta() -> None:
    for r in (1, 10, 100, 1000):
        bound = one_run_epsilon_lower_bound(r, r, r, delta=0.0)
        assert bound == pytest.approx(one_run_epsilon_ceiling(r), abs=1e-6)


def test_ceilings() -> None:
    assert round(one_run_epsilon_ceiling(100), 2) == 3.49
    assert round(one_run_epsilon_ceiling(1000), 2) == 5.81
    assert one_run_epsilon_ceiling(0) == 0.0


@pytest.mark.parametrize(("r", "v"), [(0, 0), (100, 0), (100, 50), (1, 1)])
def test_guesses_no_better_than_a_coin_prove_nothing(r: int, v: int) -> None:
    assert one_run_epsilon_lower_bound(1000, r, v, 1e-5) == 0.0


def test_more_right_guesses_and_less_confidence_prove_more() -> None:
    bounds = [one_run_epsilon_lower_bound(1000, 100, v, 1e-5) for v in range(50, 101, 5)]
    assert bounds == sorted(bounds)
    assert one_run_epsilon_lower_bound(1000, 100, 80, 1e-5, confidence=0.9) > bounds[6]


@pytest.mark.parametrize(
    "arguments",
    [
        {"correct": 11},
        {"guesses": 21},
        {"correct": -1},
        {"delta": 1.0},
        {"delta": -1e-9},
        {"delta": math.nan},
        {"confidence": 1.0},
        {"confidence": 0.0},
    ],
)
def test_bad_input(arguments: dict[str, float]) -> None:
    good = {"canaries": 20, "guesses": 10, "correct": 9, "delta": 1e-5}
    with pytest.raises(InputError, match="expected"):
        one_run_epsilon_lower_bound(**{**good, **arguments})  # type: ignore[arg-type]
