"""Name a hidden word by numbers about it, with a regression on words that are known.

Each number is cut into bins, so that the guess is a sum of what each of them says, as in
``attnpriv.audit.leakage.guessing``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

BINS = 6  # of each number: what a word does to it need not grow with it
PENALTY = 4.0  # words' worth of doubt in each bin
NEVER = 2**40  # the rank of a word that the guesser does not know


class Guesser:
    """Ranks known words by a regression.

    Args:
        rows: the numbers about each known word.
        words: the words.
    """

    def __init__(self, rows: Sequence[Sequence[float]], words: Sequence[str]) -> None:
        self._edges = [_edges(column) for column in zip(*rows, strict=True)]
        counts = Counter(words)
        self._words = sorted(counts)
        self._shares = [counts[word] / len(words) for word in self._words]
        binned = [self._bins(row) for row in rows]
        self._weights = _ridge(binned, self._sums(binned, words), self._features)

    @property
    def _features(self) -> int:
        return BINS * len(self._edges)

    def _bins(self, row: Sequence[float]) -> list[int]:
        """Which of the features is on, for each number."""
        pairs = zip(self._edges, row, strict=True)
        return [BINS * n + bisect_left(edges, value) for n, (edges, value) in enumerate(pairs)]

    def _sums(self, binned: Sequence[Sequence[int]], words: Sequence[str]) -> list[list[float]]:
        """For each feature how often each word has it, less what its share expects."""
        at = {word: n for n, word in enumerate(self._words)}
        found = [[0.0] * len(at) for _ in range(self._features)]
        on = [0] * self._features
        for features, word in zip(binned, words, strict=True):
            for feature in features:
                found[feature][at[word]] += 1
                on[feature] += 1
        return [
            [own - on[n] * share for own, share in zip(row, self._shares, strict=True)]
            for n, row in enumerate(found)
        ]

    def rank(self, row: Sequence[float], word: str) -> int:
        """How many words are guessed before the right one; of equals the first comes first."""
        if word not in self._words:
            return NEVER
        scores = list(self._shares)
        for feature in self._bins(row):
            scores = [s + w for s, w in zip(scores, self._weights[feature], strict=True)]
        at = self._words.index(word)
        own = scores[at]
        return sum(s > own for s in scores) + scores[:at].count(own)


def _edges(column: Sequence[float]) -> list[float]:
    ordered = sorted(column)
    return [ordered[len(ordered) * n // BINS] for n in range(1, BINS)]


def _ridge(
    binned: Sequence[Sequence[int]], sums: list[list[float]], features: int
) -> list[list[float]]:
    """Weights of each feature for each word, by Gaussian elimination; no pivot can be 0."""
    moments = [[PENALTY * (i == j) for j in range(features)] for i in range(features)]
    for row in binned:
        for i in row:
            for j in row:
                moments[i][j] += 1.0
    right = [list(row) for row in sums]
    for pivot in range(features):
        for below in range(pivot + 1, features):
            factor = moments[below][pivot] / moments[pivot][pivot]
            if factor:
                moments[below] = _less(moments[below], factor, moments[pivot])
                right[below] = _less(right[below], factor, right[pivot])
    for pivot in reversed(range(features)):
        for later in range(pivot + 1, features):
            if moments[pivot][later]:
                right[pivot] = _less(right[pivot], moments[pivot][later], right[later])
        right[pivot] = [value / moments[pivot][pivot] for value in right[pivot]]
    return right


def _less(row: Sequence[float], factor: float, other: Sequence[float]) -> list[float]:
    return [value - factor * own for value, own in zip(row, other, strict=True)]
