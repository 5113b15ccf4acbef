"""Guess the tokens of a text from numbers that were computed from it, beside a guesser without.

A guesser is fitted to texts that the attacker knows, and used on others. It knows the tokens of
these texts only: a token that occurs in none of them is never guessed.

Shapes: N texts, T tokens of one of them, V known tokens, F features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnpriv.audit.leakage.fitting import Bools
from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.estimates import UNDEFINED, Estimate, percentile_interval

Ints = NDArray[np.int64]
BINS = 8  # of each feature: what a token does to it need not grow with it
PENALTY = 10.0  # tokens' worth of doubt in each bin
OF_VECTORS = 0.3  # penalty where a row is a vector of norm 1
KS = (1, 10)
NEVER = 2**40  # the rank of a token that the guesser does not know


@dataclass(frozen=True)
class Recovered:
    """Shares of the tokens that are among a guesser's first 1 and first 10 guesses.

    Attributes:
        top1: of all tokens.
        top10: of all tokens.
        sensitive_top1: of those in personal data; undefined where there are none.
        sensitive_top10: likewise.
    """

    top1: Estimate
    top10: Estimate
    sensitive_top1: Estimate
    sensitive_top10: Estimate


@dataclass(frozen=True)
class Hits:
    """How many tokens of each text were recovered.

    Attributes:
        counts: among the first 1, the first 10, and of the sensitive ones likewise, [N, 4].
        sizes: tokens, and sensitive tokens, [N, 2].
    """

    counts: Floats
    sizes: Floats

    @classmethod
    def of(cls, ranks: Sequence[Ints], sensitive: Sequence[Bools]) -> Hits:
        """From the rank of each token of each text, 0 being the first guess."""
        rows = [
            [int((r[chosen] < k).sum()) for chosen in (np.ones_like(s), s) for k in KS]
            for r, s in zip(ranks, sensitive, strict=True)
        ]
        sizes = [[len(s), int(s.sum())] for s in sensitive]
        return cls(np.array(rows, dtype=np.float64), np.array(sizes, dtype=np.float64))

    def first(self, count: int) -> Hits:
        """Those of the first texts."""
        return Hits(self.counts[:count], self.sizes[:count])

    def recovered(self, resamples: int, seed: int) -> Recovered:
        """The shares, with intervals by bootstrap over texts."""
        return Recovered(*(self._share(column, resamples, seed) for column in range(4)))

    def _share(self, column: int, resamples: int, seed: int) -> Estimate:
        counts, sizes = self.counts[:, column], self.sizes[:, column // 2]
        if not sizes.any():
            return UNDEFINED
        drawn = bootstrap_ratios(counts[:, None], sizes, resamples, seed)[:, 0]
        return percentile_interval(float(counts.sum() / sizes.sum()), drawn)

    def above(self, other: Hits, resamples: int, seed: int) -> tuple[Floats, Floats]:
        """The shares among the first 1 and the first 10 less those of another guesser.

        Returns:
            The differences [2], and those of the same resampled texts [R, 2].
        """
        more, sizes = (self.counts - other.counts)[:, :2], self.sizes[:, 0]
        drawn = bootstrap_ratios(more, sizes, resamples, seed)
        return np.asarray(more.sum(0) / sizes.sum()), drawn


class Tokens:
    """The tokens that stand in the texts which an attacker knows.

    Args:
        texts: token ids of each of them.
    """

    def __init__(self, texts: Sequence[Ints]) -> None:
        self.ids = np.unique(np.concatenate(texts))

    def columns(self, ids: Ints) -> Ints:
        """The place of each token among the known ones; -1 for those that are not known."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[at] == ids, at, -1)

    def sums(self, ids: Ints, rows: Floats) -> Floats:
        """The sum of the rows [T, F] of each known token, [F, V]."""
        found = np.zeros((len(self.ids), rows.shape[1]))
        np.add.at(found, self.columns(ids), rows)
        return np.asarray(found.T)


def guess_places(
    known: Sequence[Floats], ids: Sequence[Ints], asked: Sequence[Floats], truth: Sequence[Ints]
) -> list[Ints]:
    """The rank of the token at each place of the asked texts, by a regression on its features.

    Each feature is cut into eight bins, so that the guess is a sum of what each of them says.

    Args:
        known: of each known text the features of its places [T, F]; F may be 0.
        ids: of each known text its token ids [T].
        asked: of each other text the features of its places.
        truth: of each other text its token ids.
    """
    tokens, rows, all_ids = Tokens(ids), np.concatenate(known), np.concatenate(ids)
    edges = np.quantile(rows, np.arange(1, BINS) / BINS, axis=0)
    binned = _bins(rows, edges)
    shares = np.bincount(tokens.columns(all_ids), minlength=len(tokens.ids)) / len(all_ids)
    weights = _ridge(binned, tokens.sums(all_ids, binned) - binned.sum(0)[:, None] * shares)
    return [
        _ranks(_bins(own, edges) @ weights + shares, tokens.columns(found))
        for own, found in zip(asked, truth, strict=True)
    ]


def guess_texts(
    known: Floats, ids: Sequence[Ints], asked: Floats, truth: Sequence[Ints]
) -> list[Ints]:
    """The rank of each token of the asked texts, by a regression on one vector a text.

    A token's rank is its place among those that are not in the text: it is the first guess where
    none of these is as likely.

    Args:
        known: the vectors of the known texts, [N, F]; F may be 0.
        ids: of each known text its token ids [T].
        asked: the vectors of the other texts.
        truth: of each other text its token ids.
    """
    tokens, different = Tokens(ids), [np.unique(each) for each in ids]
    counts = np.bincount(tokens.columns(np.concatenate(different)), minlength=len(tokens.ids))
    shares = counts / len(ids)
    centre, spread = known.mean(0), np.maximum(known.std(0), 1e-9)
    scale = spread * np.sqrt(max(known.shape[1], 1))
    vectors = (known - centre) / scale
    repeated = np.repeat(vectors, [len(each) for each in different], 0)
    sums = tokens.sums(np.concatenate(different), repeated)  # the vectors' own sum is 0
    scores = (asked - centre) / scale @ _ridge(vectors, sums, OF_VECTORS) + shares
    return [ranks_among_absent(s, tokens.columns(t)) for s, t in zip(scores, truth, strict=True)]


def _bins(rows: Floats, edges: Floats) -> Floats:
    """Which bin each feature is in, as zeros and ones [T, F * BINS]."""
    places = (rows[:, :, None] > edges.T).sum(-1)
    return np.asarray((places[:, :, None] == np.arange(BINS)).reshape(len(rows), -1), np.float64)


def _ridge(rows: Floats, sums: Floats, penalty: float = PENALTY) -> Floats:
    """Weights [F, V] of a regression, by its rows [N, F] and their sums with the targets [F, V]."""
    moments = rows.T @ rows + penalty * np.eye(rows.shape[1])
    return np.asarray(np.linalg.solve(moments, sums))


def _ranks(scores: Floats, columns: Ints) -> Ints:
    """How many tokens are guessed before the right one at each place: [T, V], columns [T]."""
    own = scores[np.arange(len(columns)), columns][:, None]
    earlier = np.arange(scores.shape[1]) < columns[:, None]  # of equals the first is guessed first
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(1)
    return np.where(columns < 0, NEVER, ahead)


def ranks_among_absent(scores: Floats, columns: Ints) -> Ints:
    """How many tokens that the text does not hold are guessed before each of its own [T].

    Args:
        scores: of all tokens, [V].
        columns: those of the text, [T]; -1 for tokens that have no score.
    """
    absent = np.ones(len(scores), dtype=np.bool_)
    absent[columns[columns >= 0]] = False
    others, at = scores[absent], np.flatnonzero(absent)
    own = scores[columns][:, None]
    ahead = ((others > own) | ((others == own) & (at < columns[:, None]))).sum(1)
    return np.where(columns < 0, NEVER, ahead)
