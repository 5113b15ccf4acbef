"""Membership attacks with shadow models: LiRA and RMIA, each from arrays to scores.

Shadow models are trained like the target, each on a random half of the records, so that every
record has models that were trained on it (IN) and models that were not (OUT). An attack asks of
which kind the target's answer looks, record by record; a higher score speaks for a member.

======== ===========================================================
R        records under attack
Z        records of the population that RMIA compares with
M        shadow models
======== ===========================================================

Claim: none. These are the strongest known attacks from one confidence a record; that they find
little proves nothing. Condition: which records a shadow model was trained on was decided by coins
that are independent of the target's own records. Not covered: attackers who see more than the
confidence in the true label, or who know the target's data better than these shadow models do.

Sources: LiRA, Carlini, Chien, Nasr, Song, Terzis and Tramèr 2022 (arXiv:2112.03570), section V;
RMIA, Zarifzadeh, Liu and Shokri 2024 (arXiv:2312.03262), equations 4 and 10 and appendix B.2.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from attnpriv.audit.statistics import Floats
from attnpriv.errors import InputError
from attnpriv.shadow_answers import (
    LEAST,
    OFFLINE_A,
    OWN_VARIANCE,
    SMALLEST_VARIANCE,
    deviations,
    log_density,
    ratio_online,
)
from attnpriv.shadow_answers import ratio_offline as offline

Bools = NDArray[np.bool_]

# RMIA's γ in its authors' code. A model that tells little has ratios near 1 throughout: with γ = 2,
# none would exceed another's, and all scores would be 0.
GAMMA = 1.0


@dataclass(frozen=True)
class Confidences:
    """What the target and its shadow models say about records.

    Attributes:
        target: the target's log-odds of the true label, ``ln p - ln(1 - p)``, [R].
        shadows: those of the shadow models, [M, R].
        inside: whether each shadow model was trained on each record, [M, R].

    Raises:
        InputError: the shapes do not fit, or a value is not finite.
    """

    target: Floats
    shadows: Floats
    inside: Bools

    def __post_init__(self) -> None:
        models = self.shadows.shape[0] if self.shadows.ndim == 2 else 0
        wanted = (models, *self.target.shape)
        if not models or self.shadows.shape != wanted or self.inside.shape != wanted:
            raise InputError(
                "expected confidences of shadow models [M, R] with bits [M, R] for a target [R], "
                f"got {self.shadows.shape}, {self.inside.shape} and {self.target.shape}"
            )
        if not (np.isfinite(self.target).all() and np.isfinite(self.shadows).all()):
            raise InputError("expected confidences that are finite")

    @property
    def deviation(self) -> float:
        """Of the OUT models' log-odds around each record's mean, over all records."""
        return float(_moments(self, ~self.inside)[1].mean() ** 0.5)

    def of(self, records: Bools | NDArray[np.int64]) -> Confidences:
        """Those about some of the records."""
        return Confidences(self.target[records], self.shadows[:, records], self.inside[:, records])

    @property
    def usable(self) -> Bools:
        """Which records enough models on both sides say something about, [R]."""
        of_inside = self.inside.sum(0)
        return np.asarray(np.minimum(of_inside, len(self.inside) - of_inside) >= LEAST)


def lira(seen: Confidences) -> Floats:
    """LiRA, online: log-likelihood ratio of the target's log-odds under IN and OUT models, [R].

    Both are normal, with mean and variance of the record's own models. With fewer than 64 shadow
    models, as in the paper, all records share one variance for IN and one for OUT, estimated from
    what is left of the log-odds after each record's mean is taken off.

    Raises:
        InputError: a record has fewer than two models on a side.
    """
    return _log_density(seen, seen.inside) - _log_density(seen, ~seen.inside)


def lira_offline(seen: Confidences) -> Floats:
    """LiRA, offline: by how many standard deviations the target is above the OUT models, [R].

    The paper's score ``1 - Pr[Z > φ]``, Z normal as the OUT models, is the normal distribution
    function of this one: the order is the same, and records far out do not tie at 1. No model that
    was trained on the record is used, so an attacker need not know it beforehand.

    Raises:
        InputError: as in ``lira``.
    """
    mean, variance = _moments(seen, ~seen.inside)
    return np.asarray(deviations(seen.target, mean, variance))


def rmia(seen: Confidences, population: Confidences, gamma: float = GAMMA) -> Floats:
    """RMIA, online: the share of the population that the record's ratio exceeds γ times, [R].

    The ratio of a record is the target's probability of the true label over the mean of the shadow
    models' probabilities, half of it IN and half OUT models.

    Args:
        seen: the records under attack.
        population: records that the target was not trained on, [Z]. Records may stand in it that
            are under attack too: against one population the score only grows with a record's
            ratio, whoever stands in it.
        gamma: γ; it moves the scores, and their order only where scores become equal.

    Raises:
        InputError: as in ``lira``, or γ is not positive.
    """
    return _dominated(ratio(seen), ratio(population), gamma)


def rmia_offline(
    seen: Confidences,
    population: Confidences,
    gamma: float = GAMMA,
    a: float = OFFLINE_A,
) -> Floats:
    """RMIA, offline: as ``rmia``, from OUT models alone, [R].

    What the shadow models would say on average is guessed from the OUT models as
    ``((1 + a) p_out + (1 - a)) / 2``: IN models are taken to be right with probability
    ``a p_out + 1 - a``. 0 says that they know each record by heart, 1 that they are as OUT models.

    Raises:
        InputError: as in ``rmia``, or a is not in [0, 1].
    """
    return _dominated(ratio_offline(seen, a), ratio_offline(population, a), gamma)


def ratio(seen: Confidences) -> Floats:
    """The ratio of each record that ``rmia`` counts with, [R].

    It orders records as the score does against any population, but never makes ties of them. Where
    the population is under attack itself, the score's ties depend on how rounding goes.

    Raises:
        InputError: as in ``lira``.
    """
    inside, outside = (_probability(seen, side) for side in (seen.inside, ~seen.inside))
    return np.asarray(ratio_online(expit(seen.target), inside, outside))


def ratio_offline(seen: Confidences, a: float = OFFLINE_A) -> Floats:
    """The ratio of each record that ``rmia_offline`` counts with, as ``ratio``, [R].

    Raises:
        InputError: as in ``rmia_offline``.
    """
    if not 0 <= a <= 1:
        raise InputError(f"expected a in [0, 1], got {a}")
    return np.asarray(offline(expit(seen.target), _probability(seen, ~seen.inside), a))


def _dominated(ratios: Floats, of_population: Floats, gamma: float) -> Floats:
    """For each ratio the share of the population's of which it is at least γ times."""
    if not gamma > 0:
        raise InputError(f"expected gamma > 0, got {gamma}")
    if not len(of_population):
        raise InputError("expected at least one record in the population, got none")
    below = np.searchsorted(np.sort(of_population) * gamma, ratios, side="right")
    return np.asarray(below / len(of_population))


def _probability(seen: Confidences, side: Bools) -> Floats:
    """The mean probability of the true label over the models of one side, [R]."""
    return _mean(expit(seen.shadows), side)


def _log_density(seen: Confidences, side: Bools) -> Floats:
    """Log-density of the target under the models of one side, without its constant, [R]."""
    mean, variance = _moments(seen, side)
    return np.asarray(log_density(seen.target, mean, variance, np.log(variance)))


def _moments(seen: Confidences, side: Bools) -> tuple[Floats, Floats]:
    """Mean [R] and variance, [R] or one for all, of the log-odds of the models of one side."""
    mean = _mean(seen.shadows, side)
    squares = ((seen.shadows - mean) ** 2 * side).sum(0)
    free = side.sum(0) - 1
    own = squares / free if len(side) >= OWN_VARIANCE else squares.sum() / free.sum()
    return mean, np.maximum(own, SMALLEST_VARIANCE)


def _mean(values: Floats, side: Bools) -> Floats:
    count = side.sum(0)
    if (count < LEAST).any():
        raise InputError(
            f"expected at least {LEAST} shadow models that were trained on each record and "
            f"{LEAST} that were not, got a record with {count.min()}"
        )
    return np.asarray((values * side).sum(0) / count)
