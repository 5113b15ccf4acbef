"""How much more of a score falls on sensitive tokens than their share of the tokens.

For document d with m content tokens (special tokens are no part of this), k of them sensitive, and
non-negative scores s: ``A_d = Σ_sensitive s / Σ_content s`` and ``u_d = k/m``. The lift is
``Σ_d A_d / Σ_d u_d``; 1 means that sensitive tokens get what tokens get on average. A document
whose scores are all zero counts as uniform, one without sensitive tokens adds 0 to both sums.

Where several p-values are listed, two corrections stand beside each: single-step maxT, which is
exact under any dependence of the heads and decides what is marked as significant, and Holm's steps,
which anybody can check from the listed p-values. Holm's smallest value is the number of tests over
the draws plus one: 72 heads need more than 1,440 draws before it can fall below 0.05.

Not covered: why. Sensitive tokens differ from others in length, rarity and position; a lift that
such tokens would have anyway is no sign of interest in personal data. ``attnpriv.audit.matched``
takes length and position out.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from attnpriv.audit.statistics import Floats, bootstrap_ratios
from attnpriv.audit.tally import Tally
from attnpriv.estimates import ROUNDING, UNDEFINED, Control, Estimate, holm, percentile_interval

GRID = 2.0**-36  # of shares; scores come from float32, which is coarser
PLANTED = 2.0  # how much heavier the positive control makes sensitive tokens


@dataclass(frozen=True)
class Lift:
    """Lift of one score, beside what the draws of a null give; see ``TokenLift`` for the two nulls.

    Attributes:
        lift: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the lift under the null.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided p-value of this score alone.
        p_adjusted: the same, corrected for all scores tested together (single-step maxT).
        p_holm: the same by Holm's steps; never below their number over the draws plus one.
    """

    lift: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None
    p_adjusted: float | None
    p_holm: float | None


NO_LIFT = Lift(UNDEFINED, None, None, None, None, None)


class LiftAccumulator(Tally):
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
        self.null += draw_labels(self._seed, document, len(self.null), m, k)[1] @ share.T

    def lifts(self, resamples: int) -> tuple[Lift, ...]:
        """The lift of each of the S scores, their p-values corrected together."""
        return self.averaged(self.shares.shape[1], resamples)

    def overall(self, resamples: int) -> Lift:
        """The lift of the mean of the S scores' shares."""
        return self.averaged(1, resamples)[0]

    def averaged(self, groups: int, resamples: int) -> tuple[Lift, ...]:
        """The lifts of the mean shares of S/groups consecutive scores, such as a layer's heads."""
        shares = group_means(self.shares, groups)
        ratios = bootstrap_ratios(shares, self.uniform, resamples, self._seed)
        null = group_means(self._observed_null(), groups)
        return make_lifts(self._observed(shares), ratios, null)

    def mean_shares(self) -> Floats:
        """``A_d`` averaged over the S scores, [documents]."""
        return np.asarray(group_means(self.shares, 1)[:, 0])

    def _observed(self, shares: Floats) -> Floats:
        return _ratio(shares.sum(0), self.uniform.sum())

    def _observed_null(self) -> Floats:
        return _ratio(self.null, self.uniform.sum())


def _ratio(numerators: Floats, denominator: float) -> Floats:
    """NaN where no document has sensitive tokens."""
    return np.asarray(numerators / (denominator or np.nan))


def group_means(values: Floats, groups: int) -> Floats:
    """Means of consecutive columns: [N, S] to [N, groups]."""
    return np.asarray(values.reshape(len(values), groups, -1).mean(2))


def bootstrap_columns(tops: Floats, bottoms: Floats, resamples: int, seed: int) -> Floats:
    """Ratios of sums over resampled documents, column by column: two [N, G] to [R, G]."""
    # Over a denominator of 1 a document, the ratios of sums are means; their ratios are wanted.
    both, one = np.hstack([tops, bottoms]), np.ones(len(tops))
    means = bootstrap_ratios(both, one, resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(means[:, : tops.shape[1]] / means[:, tops.shape[1] :])


@lru_cache(maxsize=1)  # all statistics of a document are drawn for one after the other
def draw_labels(
    seed: int, document: int, draws: int, m: int, k: int
) -> tuple[NDArray[np.intp], Floats]:
    """``draws`` sets of k of a document's m positions, uniform without replacement.

    Returns:
        The positions [draws, k], whose order within a set is not uniform, and 1 at each of them,
        else 0, [draws, m]. Both are shared: they must not be changed.
    """
    rng = np.random.default_rng([seed, document])
    order = rng.random((draws, m), dtype=np.float32).argpartition(k - 1, axis=1)[:, :k]
    labels = np.zeros((draws, m))
    np.put_along_axis(labels, order, 1.0, axis=1)
    return order, labels


def scores_to_shares(scores: Floats) -> Floats:
    """Each row of non-negative scores [S, m] divided by its sum; uniform where that is 0.

    In multiples of ``GRID``, so that sums over fewer than 2^17 documents are exact in float64: the
    same in any order, and the same for a permutation as for the labelling that it equals.
    """
    total = scores.sum(1, keepdims=True)
    uniform = np.full_like(scores, 1 / scores.shape[1])
    return on_grid(np.divide(scores, total, out=uniform, where=total > 0))


def on_grid(shares: Floats) -> Floats:
    """The nearest multiples of ``GRID``."""
    return np.asarray(np.rint(shares / GRID) * GRID)


def paired_ratio(a: LiftAccumulator, b: LiftAccumulator, resamples: int, seed: int) -> Estimate:
    """The overall lift of a over that of b, both on the same documents and the same resamples."""
    ratios = [
        bootstrap_ratios(each.mean_shares()[:, None], each.uniform, resamples, seed)[:, 0]
        for each in (a, b)
    ]
    lifts = [each.mean_shares().sum() / max(each.uniform.sum(), 1e-300) for each in (a, b)]
    if not lifts[1]:
        return UNDEFINED
    with np.errstate(divide="ignore", invalid="ignore"):
        return percentile_interval(lifts[0] / lifts[1], ratios[0] / ratios[1])


class LiftControls(Tally):
    """The same statistic on random scores over the same tokens: planted, and not planted.

    The planted lift must be significant, or these documents are too few to find one of that size;
    the other must not be.
    """

    def __init__(self, documents: int, permutations: int, seed: int) -> None:
        self.scores = LiftAccumulator(documents, 2, permutations, seed)
        self._seed = seed

    def add(self, document: int, sensitive: NDArray[np.bool_]) -> None:
        """Add a document's content tokens [m]."""
        rng = np.random.default_rng([self._seed, document, 1])
        scores = rng.exponential(size=(2, len(sensitive)))
        scores[0, sensitive] *= PLANTED
        self.scores.add(document, scores, sensitive)

    def result(self, resamples: int) -> tuple[Control, Control]:
        """The planted one, and the other."""
        planted, null = self.scores.lifts(resamples)
        found = (planted.lift.value or 0.0) > 1 and (planted.p_value or 1.0) < 0.05
        return (
            Control(
                "random scores, doubled on sensitive tokens: lift above 1, p < 0.05",
                planted.lift.value or 0.0,
                found,
            ),
            Control(
                "random scores: p of at least 0.001",
                null.lift.value or 0.0,
                (null.p_value or 0.0) >= 0.001,
            ),
        )


def make_lifts(
    observed: Floats,
    ratios: Floats,
    null: Floats,
    tested: tuple[Floats, Floats, Floats] | None = None,
) -> tuple[Lift, ...]:
    """S lifts with their intervals and p-values, which are corrected together.

    Args:
        observed: [S]; where it is not finite, that lift is undefined and counts for no correction.
        ratios: bootstrap resamples [R, S].
        null: draws under the null [P, S].
        tested: deviations that the p-values are taken from, [S] and [P, S], and what of them may
            be rounding, [S]; None takes those of the lifts from the mean of their draws.
    """
    lifts = [NO_LIFT] * len(observed)
    defined = np.flatnonzero(np.isfinite(observed))
    if not defined.size:
        return tuple(lifts)
    observed, null, ratios = observed[defined], null[:, defined], ratios[:, defined]
    if tested is None:
        centre = null.mean(0)
        rounding = ROUNDING * (observed + centre)
        own, adjusted = _p_values(observed - centre, null - centre, rounding)
    else:
        own, adjusted = _p_values(*(each[..., defined] for each in tested))
    stepped = holm(own.tolist())
    # The nearest draws: between two of them there is nothing where one is infinite.
    low, high = np.quantile(null, (0.025, 0.975), axis=0, method="nearest")
    for i, s in enumerate(defined):
        lifts[s] = Lift(
            percentile_interval(observed[i], ratios[:, i]),
            float(low[i]),
            float(high[i]),
            float(own[i]),
            float(adjusted[i]),
            stepped[i],
        )
    return tuple(lifts)


def _p_values(deviation: Floats, drawn: Floats, rounding: Floats) -> tuple[Floats, Floats]:
    """Two-sided p-values, alone and corrected for all series by the largest deviation (maxT).

    Deviations that differ by ``rounding`` or less are tied.

    Source: Westfall and Young 1993; Phipson and Smyth 2010 for the added one.
    """
    spread = drawn.std(0)
    scale = np.where(spread > rounding, spread, 1.0)
    measured, permuted = (np.abs(deviation) - rounding) / scale, np.abs(drawn) / scale
    own = (1 + (permuted >= measured).sum(0)) / (1 + len(drawn))
    largest = permuted.max(1, keepdims=True)
    adjusted = (1 + (largest >= measured).sum(0)) / (1 + len(drawn))
    return own, adjusted
