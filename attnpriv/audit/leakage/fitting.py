"""Attack models that are fitted to some records and used on others.

Nothing here knows a model: a row of numbers for each record goes in, a score comes out. Logistic
regression is enough for what these attacks ask, is fitted in seconds, and gives the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from attnpriv.audit.statistics import Floats

Bools = NDArray[np.bool_]
STRENGTH = 10.0  # inverse of the penalty, for rows of a norm of about 1
EXTREME = 4.0  # deviations, at which a feature is cut off
WORDS = HashingVectorizer(
    n_features=2**14, ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", alternate_sign=False
)


def half_of(count: int, seed: int) -> Bools:
    """A random half of so many records, [count]; of an odd number the smaller half."""
    order = np.random.default_rng(seed).permutation(count)
    return np.asarray(order < count // 2)


def fitted_scores(known: Floats, truth: Bools, asked: Floats) -> Floats:
    """Log-odds of the truth for each row asked about, [M], by a regression on known rows.

    Args:
        known: features [N, F].
        truth: what is to be guessed, of each of them, [N]; both values occur.
        asked: features [M, F] of other records.
    """
    centre, spread = known.mean(0), known.std(0)
    scale = np.where(spread > 0, spread, 1.0)

    def scaled(rows: Floats) -> Floats:
        cut = np.clip((rows - centre) / scale, -EXTREME, EXTREME)
        return np.asarray(cut / np.sqrt(max(rows.shape[1], 1)))

    return _log_odds(scaled(known), truth, scaled(asked))


def fitted_word_scores(known: Sequence[str], truth: Bools, asked: Sequence[str]) -> Floats:
    """The same from the texts alone: their words, pairs of words, length, digits and capitals."""
    words = [WORDS.transform(texts) for texts in (known, asked)]
    shapes = [np.array([_shape(text) for text in texts]) for texts in (known, asked)]
    centre, scale = shapes[0].mean(0), np.maximum(shapes[0].std(0), 1e-9)
    rows = [
        hstack([own, csr_matrix((shape - centre) / scale / np.sqrt(len(centre)))], "csr")
        for own, shape in zip(words, shapes, strict=True)
    ]
    return _log_odds(rows[0], truth, rows[1])


def _shape(text: str) -> list[float]:
    size = max(len(text), 1)
    return [
        np.log1p(len(text)),
        np.log1p(len(text.split())),
        sum(map(str.isdigit, text)) / size,
        sum(map(str.isupper, text)) / size,
    ]


def _log_odds(known: Floats | csr_matrix, truth: Bools, asked: Floats | csr_matrix) -> Floats:
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit(known, truth)
    return np.asarray(model.decision_function(asked), dtype=np.float64)
