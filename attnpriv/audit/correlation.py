"""Do two scores rank the tokens of a document alike? Spearman's ρ, the mean over documents.

The null shuffles one score among the tokens of each document, all documents in each draw. A
document in which a score is the same for all tokens has no ranking, and is left out and counted.

Only equal scores are ties. Scores that rounding alone moves apart get an order by chance, which
draws ρ towards 0; the p-value stays valid, since each draw shuffles the same ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.estimates import UNDEFINED, Estimate, percentile_interval


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of attention with |integrated gradients|, mean over documents.

    Attributes:
        documents: those in which neither score is the same for all tokens.
        mean: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the mean when attention is shuffled among the tokens.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided permutation p-value.
    """

    documents: int
    mean: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None


class RankCorrelations:
    """One document after the other; of each it keeps a single number.

    Draws depend on the seed and the document alone, so neither order nor batches matter.
    """

    def __init__(self, documents: int, permutations: int, seed: int) -> None:
        self.values: Floats = np.full(documents, np.nan)
        self.shuffled: Floats = np.zeros(permutations)
        self._seed = seed

    def add(self, row: int, document: int, a: Floats, b: Floats) -> None:
        """Add two scores [m] of a document's tokens as number ``row``."""
        x, y = _standardised_ranks(a), _standardised_ranks(b)
        if not (x.any() and y.any()):
            return
        self.values[row] = x @ y
        rng = np.random.default_rng([self._seed, document, 4])
        self.shuffled += rng.permuted(np.tile(x, (len(self.shuffled), 1)), axis=1) @ y

    def result(self, resamples: int) -> RankCorrelation:
        """The mean over the documents that have a ranking, against the null."""
        values = self.values[np.isfinite(self.values)]
        if not values.size:
            return RankCorrelation(0, UNDEFINED, None, None, None)
        resampled = bootstrap_ratios(values[:, None], np.ones(len(values)), resamples, self._seed)
        null = self.shuffled / len(values)
        low, high = np.quantile(null, (0.025, 0.975))
        # Rounding alone must not tell a permutation from the observed order it equals.
        beyond = int((np.abs(null) >= abs(values.mean()) - 1e-9).sum())
        return RankCorrelation(
            documents=len(values),
            mean=percentile_interval(values.mean(), resampled[:, 0]),
            null_low=float(low),
            null_high=float(high),
            p_value=(1 + beyond) / (1 + len(null)),
        )


def _standardised_ranks(scores: Floats) -> Floats:
    """Ranks less their mean, of norm 1; zeros where all scores are equal."""
    ranks = rankdata(scores) - (len(scores) + 1) / 2
    return np.asarray(ranks / (np.linalg.norm(ranks) or 1.0))
