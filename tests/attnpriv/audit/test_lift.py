from __future__ import annotations

import numpy as np
import pytest

from attnpriv.audit.lift import LiftAccumulator, LiftControls, make_lifts, paired_ratio
from attnpriv.estimates import Control, holm

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


@pytest.mark.exhaustive
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
    np.testing.assert_array_equal(forward.null, backward.null)


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

    def controls(documents: int) -> tuple[Control, Control]:
        statistics = LiftControls(len(flags), permutations=200, seed=0)
        for document in range(documents):
            statistics.add(document, flags[document])
        return statistics.result(resamples=50)

    planted, null = controls(len(flags))
    assert planted.passed
    assert null.passed
    assert not controls(1)[0].passed
    assert not controls(0)[0].passed


def test_p_values_equal_a_slow_loop_over_the_draws() -> None:
    rng = np.random.default_rng(0)
    observed, null = rng.normal(1.2, 0.1, 5), rng.normal(1, [0.05, 0.1, 0.2, 0.1, 0.3], (99, 5))
    lifts = make_lifts(observed, rng.random((20, 5)), null)
    means, spreads = null.mean(0), null.std(0)
    for s, lift in enumerate(lifts):
        mine = abs(observed[s] - means[s]) / spreads[s]
        alone = worst = 1
        for draw in null:
            deviations = [abs(draw[i] - means[i]) / spreads[i] for i in range(5)]
            alone += deviations[s] >= mine
            worst += max(deviations) >= mine
        assert lift.p_value == pytest.approx(alone / 100)
        assert lift.p_adjusted == pytest.approx(worst / 100)
    np.testing.assert_allclose(
        [lift.p_holm for lift in lifts], holm([lift.p_value or 0.0 for lift in lifts])
    )


def test_ties_that_rounding_turns_leave_every_p_value() -> None:
    rng = np.random.default_rng(3)
    exact = np.array([[0.5, 0.25, 0.25, 0.25, 0.125, 0.125, 0.5], [1.0] * 7])
    sensitive = np.array([1, 0, 0, 0, 1, 0, 0], dtype=bool)

    def p_values(noise: float) -> list[tuple[float | None, float | None]]:
        statistics = LiftAccumulator(12, 2, permutations=500, seed=0)
        for document in range(12):
            rounded = exact * (1 + noise * rng.integers(-1, 2, exact.shape))
            statistics.add(document, rounded, sensitive)
        return [(lift.p_value, lift.p_adjusted) for lift in statistics.lifts(20)]

    expected = p_values(0.0)
    assert expected[1][0] == 1.0  # the same score everywhere
    assert [p_values(2.0**-23) for _ in range(10)] == [expected] * 10


def test_an_undefined_lift_counts_for_no_correction() -> None:
    rng = np.random.default_rng(1)
    observed, null, ratios = rng.random(3), rng.random((50, 3)), rng.random((20, 3))
    with_hole = make_lifts(np.insert(observed, 1, np.nan), *(
        np.insert(each, 1, np.nan, axis=1) for each in (ratios, null)
    ))  # fmt: skip
    assert with_hole[1].lift.value is None
    assert with_hole[1].p_holm is None
    assert (with_hole[0], *with_hole[2:]) == make_lifts(observed, ratios, null)


def test_a_score_that_is_the_same_everywhere_is_no_finding() -> None:
    """All draws agree up to rounding, and so do they with what is observed."""
    statistics = LiftAccumulator(DOCUMENTS, 2, permutations=99, seed=0)
    for d, (_, flags) in enumerate(_documents(6, boost=1.0)):
        statistics.add(d, np.full((2, len(flags)), 0.1), flags)
    for lift in statistics.lifts(20):
        assert lift.lift.value == pytest.approx(1.0)
        assert (lift.p_value, lift.p_adjusted) == (1.0, 1.0)


def test_a_layer_is_the_mean_of_its_heads_shares() -> None:
    documents = _documents(7, boost=2.0)
    pairs = LiftAccumulator(DOCUMENTS, 6, permutations=99, seed=0)
    means = LiftAccumulator(DOCUMENTS, 3, permutations=99, seed=0)
    for d, (scores, flags) in enumerate(documents):
        shares = scores / scores.sum(1, keepdims=True)
        others = np.random.default_rng([d, 1]).random(shares.shape)
        others /= others.sum(1, keepdims=True)
        pairs.add(d, np.stack([shares, others], axis=1).reshape(6, -1), flags)
        means.add(d, (shares + others) / 2, flags)
    for layer, mean in zip(pairs.averaged(3, 20), means.lifts(20), strict=True):
        assert layer.lift.value == pytest.approx(mean.lift.value)
        assert layer.p_adjusted == mean.p_adjusted
