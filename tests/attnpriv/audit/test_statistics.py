from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score

from attnpriv.audit.statistics import auc, bootstrap_counts, bootstrap_ratios, clopper_pearson
from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED


def test_clopper_pearson_rule_of_three() -> None:
    share = clopper_pearson(0, 100)
    assert (share.value, share.low) == (0.0, 0.0)
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 100), rel=1e-9)
    assert clopper_pearson(0, 0) == UNDEFINED


@pytest.mark.parametrize("ties", [False, True])
def test_auc_agrees_with_two_other_implementations(ties: bool) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.4, 1, 131), rng.normal(0, 1, 97)
    if ties:
        a, b = a.round(), b.round()
    ours = auc(a, b)
    truth = np.repeat([1, 0], [len(a), len(b)])
    assert ours.value == pytest.approx(roc_auc_score(truth, np.concatenate([a, b])))
    assert ours.value == pytest.approx(mannwhitneyu(a, b).statistic / (len(a) * len(b)))


def test_auc_interval_covers_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    intervals = [auc(rng.normal(size=60), rng.normal(size=80)) for _ in range(400)]
    covered = np.mean([(i.low or 0) <= 0.5 <= (i.high or 0) for i in intervals])
    assert 0.91 <= covered <= 0.98


def test_auc_of_complete_separation_is_not_certain() -> None:
    estimate = auc(np.arange(10.0) + 100, np.arange(20.0))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, 0.7, 1.0)


def test_auc_refuses_an_empty_group() -> None:
    with pytest.raises(InputError, match="got 0 and 3"):
        auc(np.array([]), np.ones(3))


def test_the_same_seed_draws_the_same_documents() -> None:
    once, again = (np.concatenate(list(bootstrap_counts(7, 11, seed=5))) for _ in range(2))
    assert once.shape == (11, 7)
    assert (once.sum(1) == 7).all()
    np.testing.assert_array_equal(once, again)


def test_bootstrap_ratio_equals_resampling_by_hand() -> None:
    rng = np.random.default_rng(3)
    top, bottom = rng.random((13, 2)), rng.random(13)
    counts = np.concatenate(list(bootstrap_counts(13, 5, seed=2))).astype(int)
    for row, ratios in zip(counts, bootstrap_ratios(top, bottom, 5, seed=2), strict=True):
        drawn = np.repeat(np.arange(13), row)
        np.testing.assert_allclose(ratios, top[drawn].sum(0) / bottom[drawn].sum())
