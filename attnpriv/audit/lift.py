"""How much more of a score falls on sensitive tokens than their share of the tokens.

For document d with m content tokens (special tokens are no part of this), k of them sensitive, and
non-negative scores s: ``A_d = Σ_sensitive s / Σ_content s`` and ``u_d = k/m``. The lift is
``Σ_d A_d / Σ_d u_d``; 1 means that sensitive tokens get what tokens get on average. A document
whose scores are all zero counts as uniform, one without sensitive tokens adds 0 to both sums.

Not covered: why. Sensitive tokens differ from others in length, rarity and position; a lift that
such tokens would have anyway is no sign of interest in personal data.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attnpriv.audit.results import Control, Estimate, Lift
from attnpriv.audit.statistics import Floats, bootstrap_ratios, percentile_interval

PLANTED = 2.0  # how much heavier the positive control makes sensitive tokens


class LiftAccumulator:
    """Collects S scores of one document after the other; keeps S + 1 numbers of each.

    The permutation null shuffles which content tokens of a document are sensitive; its draws
    depend on the seed and the document's number alone, so neither order nor batches matter.
    """

    def __init__(self, documents: int, series: int, permutations: int, seed: int) -> None:
        self.shares: Floats = np.zeros((documents, series))
        self.uniform: Floats = np.zeros(documents)
        self.null: Floats = np.zeros((permutations, series))
        self._seed = seed

    def add(self, document: int, scores: Floats, sensitive: NDArray[np.bool_]) -> None:
        """Add the scores [S, m] of the m content tokens of a document."""
        m, k = len(sensitive), int(sensitive.sum())
        if not k:
            return
        share = scores_to_shares(scores)
        self.uniform[document] = k / m
        self.shares[document] = share[:, sensitive].sum(1)
        rng = np.random.default_rng([self._seed, document])
        order = rng.random((len(self.null), m), dtype=np.float32).argpartition(k - 1, axis=1)
        drawn = np.zeros(order.shape, dtype=np.float64)
        np.put_along_axis(drawn, order[:, :k], 1.0, axis=1)
        self.null += drawn @ share.T

    def lifts(self, resamples: int) -> tuple[Lift, ...]:
        """The lift of each of the S scores, their p-values corrected together."""
        ratios = bootstrap_ratios(self.shares, self.uniform, resamples, self._seed)
        return _lifts(self._observed(self.shares), ratios, self._observed_null())

    def overall(self, resamples: int) -> Lift:
        """The lift of the mean of the S scores' shares."""
        shares = self.mean_shares()[:, None]
        ratios = bootstrap_ratios(shares, self.uniform, resamples, self._seed)
        null = self._observed_null().mean(1, keepdims=True)
        return _lifts(self._observed(shares), ratios, null)[0]

    def mean_shares(self) -> Floats:
        """``A_d`` averaged over the S scores, [documents]."""
        return np.asarray(self.shares.mean(1))

    def _observed(self, shares: Floats) -> Floats:
        return _ratio(shares.sum(0), self.uniform.sum())

    def _observed_null(self) -> Floats:
        return _ratio(self.null, self.uniform.sum())


def _ratio(numerators: Floats, denominator: float) -> Floats:
    """NaN where no document has sensitive tokens."""
    return np.asarray(numerators / (denominator or np.nan))


def scores_to_shares(scores: Floats) -> Floats:
    """Each row of non-negative scores [S, m] divided by its sum; uniform where that is 0."""
    total = scores.sum(1, keepdims=True)
    uniform = np.full_like(scores, 1 / scores.shape[1])
    return np.asarray(np.divide(scores, total, out=uniform, where=total > 0))


def paired_ratio(a: LiftAccumulator, b: LiftAccumulator, resamples: int, seed: int) -> Estimate:
    """The overall lift of a over that of b, both on the same documents and the same resamples."""
    ratios = [
        bootstrap_ratios(each.mean_shares()[:, None], each.uniform, resamples, seed)[:, 0]
        for each in (a, b)
    ]
    lifts = [each.mean_shares().sum() / max(each.uniform.sum(), 1e-300) for each in (a, b)]
    if not lifts[1]:
        return Estimate(None, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile_interval(lifts[0] / lifts[1], ratios[0] / ratios[1])


def controls(
    sensitive: list[NDArray[np.bool_]], permutations: int, resamples: int, seed: int
) -> tuple[Control, Control]:
    """The same statistic on random scores over the same tokens: planted, and not planted.

    The planted lift must be significant, or these documents are too few to find one of that size;
    the other must not be.
    """
    expected = (
        "random scores, doubled on sensitive tokens: lift above 1, p < 0.05",
        "random scores: p of at least 0.001",
    )
    if not sensitive:
        return Control(expected[0], 0.0, False), Control(expected[1], 0.0, False)
    statistics = LiftAccumulator(len(sensitive), 2, permutations, seed)
    for document, flags in enumerate(sensitive):
        scores = np.random.default_rng([seed, document, 1]).exponential(size=(2, len(flags)))
        scores[0, flags] *= PLANTED
        statistics.add(document, scores, flags)
    planted, null = statistics.lifts(resamples)
    return (
        Control(
            expected[0],
            planted.lift.value or 0.0,
            (planted.lift.value or 0.0) > 1 and (planted.p_value or 1.0) < 0.05,
        ),
        Control(
            expected[1],
            null.lift.value or 0.0,
            (null.p_value or 0.0) >= 0.001,
        ),
    )


def _lifts(observed: Floats, ratios: Floats, null: Floats) -> tuple[Lift, ...]:
    if not np.isfinite(observed).all():
        return (Lift(Estimate(None, None, None), None, None, None, None),) * len(observed)
    own, adjusted = _p_values(observed, null)
    low, high = np.quantile(null, (0.025, 0.975), axis=0)
    return tuple(
        Lift(
            percentile_interval(observed[s], ratios[:, s]),
            float(low[s]),
            float(high[s]),
            float(own[s]),
            float(adjusted[s]),
        )
        for s in range(len(observed))
    )


def _p_values(observed: Floats, null: Floats) -> tuple[Floats, Floats]:
    """Two-sided p-values, alone and corrected for all series by the largest deviation (maxT).

    Source: Westfall and Young 1993; Phipson and Smyth 2010 for the added one.
    """
    deviation = null.std(0)
    scale = np.where(deviation > 0, deviation, 1.0)
    # Rounding alone must not tell a permutation from the observed labelling it equals.
    measured = np.abs(observed - null.mean(0)) / scale - 1e-9
    permuted = np.abs(null - null.mean(0)) / scale
    own = (1 + (permuted >= measured).sum(0)) / (1 + len(null))
    largest = permuted.max(1, keepdims=True)
    adjusted = (1 + (largest >= measured).sum(0)) / (1 + len(null))
    return own, adjusted
