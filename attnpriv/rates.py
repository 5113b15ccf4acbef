"""True positive rates at low false positive rates, with exact intervals: what both audits share.

Plain Python, without numpy and torch, since the client's audit has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log, log1p

from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.verdicts import Claim, allowed_tpr

FPRS = (0.01, 0.001)
HALF = 0.025  # what a 95 % interval leaves at each end
_TINY = 1e-300
_CONVERGED = 2e-16
_MOST_TERMS = 10_000


@dataclass(frozen=True)
class TprAtFpr:
    """True positive rate at a false positive rate.

    Attributes:
        fpr: the rate aimed at.
        tpr: share of members above the threshold, with the exact interval.
        fpr_high: upper end of the exact interval of the threshold's own false positive rate.
        not_reported: why there is no figure, if there is none.
    """

    fpr: float
    tpr: Estimate
    fpr_high: float | None = None
    not_reported: str | None = None


@dataclass(frozen=True)
class Caught:
    """What a threshold catches that lets a share of the non-members through.

    Attributes:
        fpr: the share aimed at.
        members: how many members there are.
        caught: how many of them are above the threshold.
        non_members: how many non-members there are.
        through: how many of them may be above it.
    """

    fpr: float
    members: int
    caught: int
    non_members: int
    through: int

    def rate(self) -> TprAtFpr:
        """The true positive rate with its 95 % interval, where there are enough non-members."""
        n, needed = self.non_members, round(1 / self.fpr)
        if n < needed:
            reason = f"needs at least {needed:,} non-members, there are {n:,}"
            return TprAtFpr(self.fpr, UNDEFINED, not_reported=reason)
        share = Estimate(
            self.caught / self.members, *exact_interval(self.caught, self.members, HALF)
        )
        return TprAtFpr(self.fpr, share, exact_interval(self.through, n, HALF)[1])

    def placed(
        self, claim: Claim | None, error: float
    ) -> tuple[str, Estimate, float, float | None]:
        """A figure for ``verdicts.judge`` with all of its error.

        Half of the error is for the rate and half for its threshold. The threshold is picked on
        these non-members, so its own false positive rate is uncertain; the verdict therefore
        compares with that rate's upper end, not with the rate aimed at.
        """
        low, high = exact_interval(self.caught, self.members, error / 2)
        _, chance = exact_interval(self.through, self.non_members, error / 2)
        allowed = allowed_tpr(claim.profile, chance) if claim else None
        name = f"TPR at {100 * self.fpr:g} % FPR"
        return name, Estimate(self.caught / self.members, low, high), chance, allowed


def exact_interval(successes: int, n: int, error: float) -> tuple[float, float]:
    """Clopper and Pearson's interval, wrong with chance ``error`` at most at each end.

    >>> low, high = exact_interval(0, 30, 0.025)
    >>> round(low, 6), round(high, 6)
    (0.0, 0.115703)
    """
    low = _beta_quantile(error, successes, n - successes + 1) if successes else 0.0
    high = 1 - _beta_quantile(error, n - successes, successes + 1) if successes < n else 1.0
    return low, high


def _beta_quantile(share: float, a: float, b: float) -> float:
    """By halving, to the last digits of a float."""
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high and high - low > _CONVERGED * high:
        if _incomplete_beta(a, b, middle) < share:
            low = middle
        else:
            high = middle
    return high


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function.

    Source: Press et al., Numerical Recipes, section 6.4: Lentz's continued fraction.
    """
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, _MOST_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / _away_from_zero(1 + term * d)
            c = _away_from_zero(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < _CONVERGED:
            break
    return front * fraction


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
