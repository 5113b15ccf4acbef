"""How good the predictions are, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix

from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED, Estimate, percentile_interval, wilson


@dataclass(frozen=True)
class ClassScore:
    """One class: how many rows have it, and how well it is found."""

    label: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class UtilityResult:
    """How good the predictions are. ``confusion[i][j]``: rows of class i predicted as j."""

    n: int
    accuracy: Estimate
    macro_f1: Estimate
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    resamples: int
    seed: int


def utility(
    labels: Sequence[int],
    probabilities: ArrayLike,
    label_names: Sequence[str],
    seed: int = 0,
    resamples: int = 2000,
) -> UtilityResult:
    """Accuracy, and precision, recall and F1 of each class, all with 95 % intervals.

    Accuracy has Wilson's interval; the others a bootstrap over rows. A class that was never
    predicted has precision 0, one without rows recall 0, one that scores neither F1 0. The macro F1
    is the mean over the classes that have rows.

    Args:
        labels: true classes [N].
        probabilities: predicted probabilities [N, K]; the largest is the prediction, the first of
            equals.
        label_names: names of the K classes.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Raises:
        InputError: no rows, shapes that do not fit, labels out of range, or a probability that is
            not finite.

    Not covered by any ε where the rows are private.
    """
    truth, scores = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _check(truth, scores, len(label_names))
    classes = len(label_names)
    confusion = confusion_matrix(truth, scores.argmax(1), labels=np.arange(classes))
    resampled = _resample(confusion, resamples, seed)
    supports = confusion.sum(1)
    point, drawn = _scores(confusion[None])[0], _scores(resampled)
    present = supports > 0
    return UtilityResult(
        n=len(truth),
        accuracy=wilson(int(np.trace(confusion)), len(truth)),
        macro_f1=percentile_interval(point[2, present].mean(), drawn[:, 2, present].mean(1)),
        classes=tuple(
            ClassScore(
                name,
                int(supports[c]),
                *(
                    percentile_interval(point[kind, c], drawn[:, kind, c])
                    if supports[c]
                    else UNDEFINED
                    for kind in range(3)
                ),
            )
            for c, name in enumerate(label_names)
        ),
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        resamples=resamples,
        seed=seed,
    )


def _resample(confusion: NDArray[np.int64], resamples: int, seed: int) -> Floats:
    """Confusion matrices [R, K, K] of resampled rows: drawing rows is drawing cells."""
    n = confusion.sum()
    drawn = np.random.default_rng(seed).multinomial(n, confusion.ravel() / n, size=resamples)
    return drawn.reshape(resamples, *confusion.shape).astype(np.float64)


def _scores(confusion: Floats) -> Floats:
    """Precision, recall and F1 of confusion matrices: [R, K, K] to [R, 3, K]."""
    hits = confusion.diagonal(axis1=1, axis2=2)
    predicted, actual = confusion.sum(1), confusion.sum(2)
    return np.stack(
        [
            hits / np.maximum(predicted, 1),
            hits / np.maximum(actual, 1),
            2 * hits / np.maximum(predicted + actual, 1),
        ],
        axis=1,
    )


def _check(labels: NDArray[np.int64], probabilities: Floats, classes: int) -> None:
    if not len(labels) or probabilities.shape != (len(labels), classes):
        raise InputError(
            f"expected at least one row and probabilities [{len(labels)}, {classes}], "
            f"got {list(probabilities.shape)}"
        )
    if labels.min() < 0 or labels.max() >= classes:
        raise InputError(f"expected labels in [0, {classes}), got {labels.min()} to {labels.max()}")
    if not np.isfinite(probabilities).all():
        raise InputError("expected finite probabilities, got NaN or infinity")


def run(subject: Subject, answers: Answers, progress: Progress, figures: Figures) -> UtilityResult:
    """As a measure of an audit."""
    data, options = subject.documents.data, subject.options
    right = np.asarray(answers.targets) == np.asarray(data.labels)
    figures["utility.accuracy"] = figure(range(len(right)), right.astype(np.float64))
    return utility(
        data.labels,
        answers.held_out,
        data.label_names,
        resamples=options.resamples,
        seed=options.seed,
    )
