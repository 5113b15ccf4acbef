"""The attacker who learns: from the numbers of answers to texts whose secret it knows, no words.

Everything is predicted for texts that the classifier did not see. Positions are described by their
own scores and their neighbours', texts by their probabilities and how the scores are distributed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.release.answers import Array, Bools, Ints
from benchmarks.release.policies import Shown

FOLDS, NEIGHBOURS, LARGEST = 3, 2, 8


def boosted() -> Any:
    """A classifier for two outcomes and thousands of rows."""
    return HistGradientBoostingClassifier(max_iter=30, early_stopping=False, random_state=0)


def forest() -> Any:
    """A classifier for a few outcomes and hundreds of rows."""
    return RandomForestClassifier(100, min_samples_leaf=3, random_state=0)


def linear() -> Any:
    """A classifier for a hundred outcomes."""
    return make_pipeline(
        StandardScaler(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")
    )


def predicted(features: Array, secrets: Ints, texts: Ints, classifier: Callable[[], Any]) -> Array:
    """Chances of each secret 0..C-1 for each row, [N, C], by classifiers of other texts."""
    chances = np.zeros((len(features), int(secrets.max()) + 1))
    for known, asked in GroupKFold(FOLDS).split(features, groups=texts):
        fitted = classifier().fit(features[known], secrets[known])
        chances[np.ix_(asked, fitted.classes_)] = fitted.predict_proba(features[asked])
    return chances


def positions(shown: Shown) -> Array:
    """Features of each position, [P, ..]: scores as multiples of an equal share."""
    scores = shown.scores * shown.scores.shape[1]
    count = scores.shape[1]
    padded = np.pad(scores, ((0, 0), (NEIGHBOURS, NEIGHBOURS)))
    near = [padded[:, shift : shift + count] for shift in range(2 * NEIGHBOURS + 1)]
    place = np.arange(count)
    return np.concatenate([*near, [place / count, np.full(count, count)]]).T


def text(shown: Shown) -> Array:
    """Features of a text: probabilities, and the largest scores of each layer and their spread."""
    scores = np.sort(shown.scores * shown.scores.shape[1], axis=1)[:, ::-1]
    largest = np.pad(scores, ((0, 0), (0, LARGEST)))[:, :LARGEST]
    return np.concatenate(
        [
            shown.probabilities,
            largest.ravel(),
            scores.min(1),
            scores.std(1),
            [scores.shape[1]],
        ]
    )


def entity(shown: Shown, entry: int) -> Array:
    """Features of one entity, known to be there: its positions, summed, and the text's."""
    own = shown.entries == entry
    first = int(np.flatnonzero(own)[0])
    summed = shown.scores[:, own].sum(1)
    return np.concatenate([positions(shown)[first], summed, [own.sum()], text(shown)])


def top_is_right(scores: Array, right: Bools, texts: Ints) -> list[float]:
    """For each text whether the position with the highest score is a right one; ties by halves."""
    hits = []
    for number in np.unique(texts):
        here = texts == number
        best = scores[here] == scores[here].max()
        hits.append(float(right[here][best].mean()))
    return hits


def stacked(parts: Sequence[Array]) -> tuple[Array, Ints]:
    """Rows of several texts below each other, and the number of the text of each."""
    numbers = [np.full(len(part), number) for number, part in enumerate(parts)]
    return np.concatenate(parts), np.concatenate(numbers)
