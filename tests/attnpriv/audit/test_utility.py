from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from attnpriv.audit.utility import utility
from attnpriv.errors import InputError


def _rows(n: int = 211, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    scores = rng.random((n, classes)) + 0.8 * np.eye(classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def test_points_agree_with_scikit_learn() -> None:
    labels, probabilities = _rows()
    result = utility(labels.tolist(), probabilities, ["a", "b", "c"], resamples=200)
    predicted = probabilities.argmax(1)
    assert result.accuracy.value == accuracy_score(labels, predicted)
    assert result.macro_f1.value == pytest.approx(f1_score(labels, predicted, average="macro"))
    expected = np.array(precision_recall_fscore_support(labels, predicted))
    for c, score in enumerate(result.classes):
        ours = [score.precision.value, score.recall.value, score.f1.value, score.support]
        assert ours == pytest.approx(expected[:, c])


def test_bootstrap_interval_agrees_with_resampling_rows() -> None:
    labels, probabilities = _rows()
    result = utility(labels.tolist(), probabilities, ["a", "b", "c"], resamples=4000)
    rng, predicted = np.random.default_rng(9), probabilities.argmax(1)
    drawn = [
        f1_score(labels[rows], predicted[rows], average="macro")
        for rows in rng.integers(0, len(labels), (400, len(labels)))
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert result.macro_f1.low == pytest.approx(low, abs=0.02)
    assert result.macro_f1.high == pytest.approx(high, abs=0.02)


def test_absent_and_never_predicted_classes() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0]] * 3)
    result = utility([0, 0, 1], probabilities, ["a", "b", "c"], resamples=50)
    _, never_predicted, absent = result.classes
    assert (never_predicted.precision.value, never_predicted.f1.value) == (0.0, 0.0)
    assert absent.f1.value is None
    assert result.macro_f1.value == pytest.approx((0.8 + 0.0) / 2)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.zeros((0, 2)), "at least one row"),
        ([0], [[0.5, 0.5], [1, 0]], "probabilities \\[1, 2\\]"),
        ([2], [[0.5, 0.5]], "labels in"),
        ([0], [[np.nan, 0.5]], "finite"),
    ],
)
def test_bad_input(labels: list[int], probabilities: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        utility(labels, probabilities, ["a", "b"])  # type: ignore[arg-type]
