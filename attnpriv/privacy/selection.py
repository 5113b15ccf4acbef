"""What a search over hyper-parameters costs when only its best run is released.

The search that is accounted for (Papernot and Steinke, arXiv:2110.03620): draw a secret number K of
runs; for each run draw a candidate from a fixed public list, with replacement and by a public
distribution, train it with fresh noise, and score it; release the weights, the hyper-parameters and
the score of the run that scored best, and nothing else.

The score of a run is the number of validation rows that it predicts correctly, plus Gaussian noise.
It only has to rank the runs, which share their validation rows, so nothing is divided by their
number. One record changes the count by at most 1.

Claim: the release is (ε, δ)-differentially private for adding or removing one record, ε from
``epsilon_of_selection``. Conditions:

- Each record belongs to the training or to the validation rows by a rule that looks at this record
  alone, as in ``attnpriv.data.splits``. Adding a record then leaves every other one in its part,
  and changes either the weights or, given the weights, the score: a run costs the larger of the
  two, at each Rényi order. Shuffling the rows and cutting them at some position is no such rule:
  one row more moves others across the cut, and no ε here holds.
- The runs are independent given the data. A search that lets the scores so far choose the next
  candidate is not covered, and neither is going through the list in turn.
- Nobody learns K: no list of runs, no count, no other run's result, no time that the search took.

Not covered: the number of training rows where a sampling rate is computed from it, the candidates
if somebody chose them by looking at the data, and floating-point attacks on the noise.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from attnpriv.config import RunDistribution, is_number, is_whole
from attnpriv.errors import InputError
from attnpriv.privacy.accounting import LARGEST_NOISE, MOST_STEPS, check_target, smallest_noise
from attnpriv.privacy.renyi import ORDERS, epsilon_from_rdp, step_rdp
from attnpriv.rounding import round_up

Array = NDArray[np.float64]

MOST_RUNS = 10_000  # on average; drawing their number takes as long


@dataclass(frozen=True)
class RunCount:
    """The distribution of the secret number K of runs.

    Attributes:
        mean: expected number of runs, at least 1.
        distribution: ``poisson`` keeps K close to its mean, but its ε grows linearly with it.
            ``geometric`` (the paper's η = 1) grows with its logarithm, which costs less for many
            runs, and never gives 0; but K is small often, and several times its mean at times. For
            the same chance to try a good candidate it needs half as many runs again or more.

    Raises:
        InputError: the mean is not from 1 to 10,000, or the distribution is unknown.
    """

    mean: float
    distribution: RunDistribution = "poisson"

    def __post_init__(self) -> None:
        if not (is_number(self.mean) and 1 <= self.mean <= MOST_RUNS):
            raise InputError(f"expected mean from 1 to {MOST_RUNS}, got {self.mean!r}")
        if self.distribution not in get_args(RunDistribution):
            choices = ", ".join(get_args(RunDistribution))
            raise InputError(f"expected distribution one of {choices}, got {self.distribution!r}")

    def draw(self, stream: random.Random | None = None) -> int:
        """Draw K; it must stay secret.

        A Poisson K can be 0, with chance e^-mean. The release must then be something that does not
        depend on the data, such as the untrained model. Drawing again would be another distribution
        than the one that is accounted for.

        Args:
            stream: None draws from the operating system. A seeded one is for tests: whoever can
                repeat it knows K, and ε is void against them.
        """
        stream = random.SystemRandom() if stream is None else stream
        if self.distribution == "geometric":
            runs = 1
            while stream.random() >= 1 / self.mean:
                runs += 1
            return runs
        # The arrivals, in a time as long as the mean, of what comes once per unit of time.
        runs, time = 0, stream.expovariate(1.0)
        while time <= self.mean:
            runs, time = runs + 1, time + stream.expovariate(1.0)
        return runs


def rdp_of_run(
    candidates: Iterable[tuple[float, float, int]], score_noise: float, orders: Array = ORDERS
) -> Array:
    """Rényi DP of training any one of the candidates and scoring it, at each order.

    The most that a candidate costs, or the score where it costs more: λ/(2s²) at order λ.

    Args:
        candidates: noise multiplier, sample rate and steps of each.
        score_noise: s, the standard deviation of the noise on the number of correct predictions;
            0 costs infinitely much.
        orders: Rényi orders λ > 1.
    """
    with np.errstate(divide="ignore"):
        scores = orders / (2 * np.float64(score_noise) ** 2)
    costs = [steps * step_rdp(noise, rate, orders) for noise, rate, steps in candidates]
    most: Array = np.maximum.reduce([scores, *costs])
    return most


def epsilon_of_selection(runs: RunCount, rdp: Array, delta: float, orders: Array = ORDERS) -> float:
    """The ε of releasing only the best of a random number of runs.

    Theorem 6 of the paper for a Poisson number of runs, and Theorem 2 with η = 1 for a geometric
    one, at the best pair of orders; then Proposition 12 of Canonne, Kamath and Steinke 2020
    (arXiv:2004.00010) from Rényi DP to (ε, δ). The module's docstring has claim and conditions.

    Args:
        runs: the distribution of their number.
        rdp: Rényi DP of one run at each order, its score included; see ``rdp_of_run``.
        delta: δ in (0, 1), of the whole search.
        orders: Rényi orders λ > 1.

    Returns:
        ε: that of a single run if there is always exactly one, infinite if that is.

    Raises:
        InputError: δ is out of range.
    """
    if not (is_number(delta) and 0 < delta < 1):
        raise InputError(f"expected delta in (0, 1), got {delta!r}")
    # What the choice among runs adds, after the mean number of runs has been paid for.
    if runs.distribution == "poisson":
        choice = runs.mean * _delta_of_run(rdp, np.log1p(1 / (orders - 1)), orders)
    else:
        at_order_1 = math.log(runs.mean)
        at_others = (1 - 1 / orders) * rdp + math.log(runs.mean) / orders
        choice = np.minimum(at_order_1, at_others.min()) * 2
    selected = rdp + math.log(runs.mean) / (orders - 1) + choice
    return epsilon_from_rdp(selected, delta, orders)


@dataclass(frozen=True)
class SelectionNoise:
    """Noise under which a search spends at most what it was given.

    Attributes:
        noise_multipliers: σ of each candidate, in the order in which they were given.
        score_noise: s, the standard deviation of the noise on a run's number of correct
            predictions.
        epsilon: what the whole search spends.
        run_epsilon: what one of its runs would spend by the same accountant, had it been the only
            one. For comparison: the release costs ``epsilon``.
    """

    noise_multipliers: tuple[float, ...]
    score_noise: float
    epsilon: float
    run_epsilon: float


def noise_for_selection(
    epsilon: float, delta: float, runs: RunCount, schedules: Sequence[tuple[float, int]]
) -> SelectionNoise:
    """The smallest noise, to 0.01 %, with which a search spends at most ``epsilon``.

    Each candidate gets the noise that it would need if it were the only one; where their curves
    cross, all get a little more, by the same factor. The score gets as little noise as leaves ε
    where it is: a run costs what its training costs, as long as its score does not cost more at an
    order that counts.

    Args:
        epsilon: the target of the whole search, > 0.
        delta: δ in (0, 1).
        runs: the distribution of the number of runs.
        schedules: sample rate in (0, 1] and number of steps, at least 1, of each candidate.

    Raises:
        InputError: an argument is out of range, or no noise up to 10,000 suffices.
    """
    check_target(epsilon)
    if not schedules:
        raise InputError("expected at least one candidate, got none")
    for rate, steps in schedules:
        if not (is_number(rate) and 0 < rate <= 1 and is_whole(steps) and 1 <= steps <= MOST_STEPS):
            raise InputError(
                f"expected sample_rate in (0, 1] and steps >= 1, got {rate} and {steps}"
            )

    def spent(rdp: Array) -> float:
        return epsilon_of_selection(runs, rdp, delta)

    def spent_alone(schedule: tuple[float, int], noise: float) -> float:
        return spent(rdp_of_run([(noise, *schedule)], math.inf))

    def curve(factor: float, score_noise: float = math.inf) -> Array:
        return rdp_of_run([(factor * alone[s], *s) for s in schedules], score_noise)

    # Searches are mostly over what costs nothing: many candidates, few schedules.
    alone = {
        schedule: _smallest_noise(partial(spent_alone, schedule), epsilon)
        for schedule in set(schedules)
    }
    factor = 1.0
    if spent(curve(factor)) > epsilon:
        factor = _smallest_noise(lambda factor: spent(curve(factor)), epsilon)
    score_noise = _smallest_noise(lambda noise: spent(curve(factor, noise)), epsilon)
    return SelectionNoise(
        noise_multipliers=tuple(factor * alone[schedule] for schedule in schedules),
        score_noise=score_noise,
        epsilon=spent(curve(factor, score_noise)),
        run_epsilon=epsilon_from_rdp(curve(factor, score_noise), delta, ORDERS),
    )


def _smallest_noise(spent: Callable[[float], float], epsilon: float) -> float:
    noise = smallest_noise(spent, epsilon)
    if noise is None:
        raise InputError(
            f"epsilon {epsilon} cannot be reached by a search with this delta and number of "
            f"runs: take an epsilon of at least {round_up(spent(LARGEST_NOISE), 4)}, fewer runs, "
            "fewer steps or a lower sample rate"
        )
    return noise


def _delta_of_run(rdp: Array, epsilons: Array, orders: Array) -> Array:
    """The smallest δ at each ε that follows from Rényi DP at any order, at most 1."""
    with np.errstate(divide="ignore"):
        # Bretagnolle and Huber: no event's chance changes by more than this, whatever ε is.
        total_variation = 0.5 * np.log1p(-np.exp(-rdp))
        excess = rdp - epsilons[:, None] + np.log1p(-1 / orders)
    logarithms = np.minimum(total_variation, (orders - 1) * excess - np.log(orders))
    smallest: Array = np.exp(np.minimum(logarithms.min(axis=1), 0.0))
    return smallest
