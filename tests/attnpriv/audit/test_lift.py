from __future__ import annotations

import numpy as np
import pytest

from attnpriv.audit.lift import LiftAccumulator, controls, paired_ratio

DOCUMENTS = 60


def _documents(seed: int, boost: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores [3, m] and sensitive flags [m]; the first series favours sensitive tokens."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(DOCUMENTS):
        m = int(rng.integers(5, 23))
        flags = rng.permutation(m) < rng.integers(0, 4)
        scores = rng.exponential(size=(3, m))
        scores[0, flags] *= boost
        made.append((scores, flags))
    return made


def _collect(documents: list[tuple[np.ndarray, np.ndarray]], order: range) -> LiftAccumulator:
    statistics = LiftAccumulator(len(documents), 3, permutations=300, seed=0)
    for d in order:
        statistics.add(d, *documents[d])
    return statistics


def test_lift_equals_a_slow_loop() -> None:
    documents = _documents(0, boost=2.0)
    lifts = _collect(documents, range(DOCUMENTS)).lifts(resamples=100)
    for series in range(3):
        numerator = denominator = 0.0
        for scores, flags in documents:
            total = sum(scores[series])
            numerator += sum(s for s, f in zip(scores[series], flags, strict=True) if f) / total
            denominator += sum(flags) / len(flags)
        assert lifts[series].lift.value == pytest.approx(numerator / denominator)


def test_planted_lift_is_found_and_noise_is_not() -> None:
    statistics = _collect(_documents(1, boost=3.0), range(DOCUMENTS))
    planted, *noise = statistics.lifts(resamples=300)
    assert (planted.lift.low or 0) > 1
    assert (planted.p_adjusted or 1) < 0.05
    for lift in noise:
        assert (lift.null_low or 9) < 1 < (lift.null_high or 0)
        assert (lift.p_adjusted or 0) >= (lift.p_value or 0) > 0.01


def test_null_rejects_as_often_as_it_should() -> None:
    rejected = 0
    for seed in range(100):
        lifts = _collect(_documents(seed, boost=1.0), range(DOCUMENTS)).lifts(resamples=20)
        rejected += any((lift.p_adjusted or 1) <= 0.05 for lift in lifts)
    assert rejected <= 11  # 5 expected; Binomial(100, 0.05) exceeds 11 in 0.4 % of cases


def test_order_of_documents_does_not_matter() -> None:
    documents = _documents(2, boost=2.0)
    forward = _collect(documents, range(DOCUMENTS))
    backward = _collect(documents, range(DOCUMENTS - 1, -1, -1))
    assert forward.overall(50).lift == backward.overall(50).lift
    np.testing.assert_allclose(forward.null, backward.null)


def test_documents_without_sensitive_tokens_and_with_zero_scores() -> None:
    statistics = LiftAccumulator(3, 1, permutations=50, seed=0)
    statistics.add(0, np.ones((1, 4)), np.zeros(4, dtype=bool))
    statistics.add(1, np.zeros((1, 4)), np.array([True, False, False, False]))
    statistics.add(2, np.ones((1, 2)), np.array([True, True]))
    lift = statistics.overall(50)
    assert lift.lift.value == 1.0
    assert lift.p_value == 1.0


def test_nothing_sensitive_gives_no_number() -> None:
    statistics = LiftAccumulator(2, 1, permutations=10, seed=0)
    statistics.add(0, np.ones((1, 3)), np.zeros(3, dtype=bool))
    lift = statistics.overall(10)
    assert lift.lift.value is None
    assert lift.p_value is None


def test_paired_ratio_of_a_run_with_itself_is_exactly_one() -> None:
    statistics = _collect(_documents(4, boost=2.0), range(DOCUMENTS))
    ratio = paired_ratio(statistics, statistics, resamples=100, seed=0)
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_controls_pass_on_many_documents_and_admit_too_few() -> None:
    flags = [flags for _, flags in _documents(5, 1.0) if flags.any()]
    planted, null = controls(flags, permutations=200, resamples=50, seed=0)
    assert planted.passed
    assert null.passed
    assert not controls(flags[:1], permutations=200, resamples=50, seed=0)[0].passed
    assert not controls([], permutations=200, resamples=50, seed=0)[0].passed
