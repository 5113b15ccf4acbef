"""How much ε a schedule of noised steps spends, by the accountants of Opacus."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from typing import get_args

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant

from attnpriv.config import Accountant
from attnpriv.errors import InputError
from attnpriv.rounding import round_up

LARGEST_NOISE = 1e4
TOLERANCE = 0.002  # of ε that the search leaves unspent at most
# The last digits of a Fourier transform depend on where its numbers lie in memory, and so differ
# from process to process; ε is rounded up past them.
DIGITS = 1e9
# The PRV accountant adds its error to stay an upper bound; small losses get a finer mesh.
PRV_EPSILON_ERRORS = (0.01, 0.001, 0.0001)
RDP_ORDERS = [*RDPAccountant.DEFAULT_ALPHAS, *(2.0**power for power in range(6, 14))]


def epsilon_spent(
    noise_multiplier: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: Accountant = "prv",
) -> float:
    """The ε that ``steps`` Poisson-subsampled Gaussian steps have spent at ``delta``.

    Args:
        noise_multiplier: σ, the noise's standard deviation over the clipping norm.
        delta: δ in (0, 1).
        sample_rate: q in (0, 1], the chance of each record to join a batch.
        steps: number of noised steps, empty batches included.
        accountant: ``prv`` (Gopi et al. 2021, arXiv:2106.02848) or ``rdp`` (Mironov 2017).

    Returns:
        An upper bound on ε for adding or removing one record; 0 for no steps, infinite for no
        noise.

    Raises:
        InputError: an argument is out of range.

    Claim: (ε, δ)-DP of all released weights and everything computed from them, if batches were
    drawn by Poisson sampling at this rate and each record's gradient was clipped before the sum.
    Not covered: any other look at the data, and floating-point attacks on the noise.
    """
    _check(delta, sample_rate, steps, accountant)
    if not noise_multiplier >= 0:
        raise InputError(f"expected noise_multiplier >= 0, got {noise_multiplier}")
    if steps == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    return _epsilon(noise_multiplier, delta, sample_rate, steps, accountant)


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: Accountant = "prv",
) -> float:
    """The smallest noise multiplier, to 0.002 of ε, whose schedule spends at most ``epsilon``.

    Args:
        epsilon: the target, > 0.
        delta: δ in (0, 1).
        sample_rate: q in (0, 1].
        steps: number of noised steps, at least 1.
        accountant: as in ``epsilon_spent``.

    Raises:
        InputError: an argument is out of range, or no noise multiplier up to 10,000 suffices.
    """
    _check(delta, sample_rate, steps, accountant)
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise InputError(f"expected epsilon > 0 and finite, got {epsilon}")
    if steps < 1:
        raise InputError(f"expected steps >= 1, got {steps}")

    def spent(noise: float) -> float:
        return epsilon_spent(noise, delta, sample_rate, steps, accountant)

    enough = 1.0
    while spent(enough) > epsilon:
        enough *= 2
        if enough > LARGEST_NOISE:
            raise InputError(
                f"epsilon {epsilon} cannot be reached in {steps} steps at sample rate {sample_rate}"
                f" and delta {delta} with the {accountant} accountant: take fewer steps, a smaller "
                "batch or a larger epsilon"
            )
    # Halve an interval whose upper end always meets the target.
    too_little = 0.0
    while epsilon - spent(enough) > TOLERANCE and enough - too_little > 1e-6 * enough:
        middle = (too_little + enough) / 2
        if spent(middle) <= epsilon:
            enough = middle
        else:
            too_little = middle
    return enough


def steps_within(
    epsilon: float,
    noise_multiplier: float,
    delta: float,
    sample_rate: float,
    most: int,
    accountant: Accountant = "prv",
) -> int:
    """The number of steps, up to ``most``, that spend at most ``epsilon`` at this noise.

    Args:
        epsilon: the target, > 0.
        noise_multiplier: σ.
        delta: δ in (0, 1).
        sample_rate: q in (0, 1].
        most: where to stop counting.
        accountant: as in ``epsilon_spent``.

    Raises:
        InputError: an argument is out of range, or the first step spends more already; the message
            says what noise one step would need.
    """

    def fits(steps: int) -> bool:
        spent = epsilon_spent(noise_multiplier, delta, sample_rate, steps, accountant)
        return spent <= epsilon

    # One step first: with so little noise that it is too much, many take minutes to account for.
    if not fits(1):
        needed = noise_multiplier_for(epsilon, delta, sample_rate, 1, accountant)
        raise InputError(
            f"one step with noise multiplier {noise_multiplier} spends more than epsilon {epsilon} "
            f"at sample rate {sample_rate:.4g} and delta {delta}: expected a noise multiplier of "
            f"at least {round_up(needed, 4)}, or a smaller batch"
        )
    if fits(most):
        return most
    fit, too_many = 1, most
    while too_many - fit > 1:
        middle = (fit + too_many) // 2
        if fits(middle):
            fit = middle
        else:
            too_many = middle
    return fit


@lru_cache(maxsize=512)
def _epsilon(
    noise_multiplier: float, delta: float, sample_rate: float, steps: int, accountant: Accountant
) -> float:
    history = [(noise_multiplier, sample_rate, steps)]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        # Both accountants warn where a bound is loose or a table has empty ends; it is still a
        # bound, and what is not a number is caught below.
        warnings.simplefilter("ignore")
        if accountant == "prv":
            epsilon = _prv_epsilon(history, delta)
            if math.isfinite(epsilon) and epsilon > 0:
                return math.ceil(epsilon * DIGITS) / DIGITS
        rdp = RDPAccountant()
        rdp.history = history
        epsilon = float(rdp.get_epsilon(delta=delta, alphas=RDP_ORDERS))
    # The conversion to (ε, δ) can dip below zero for negligible losses.
    return math.inf if math.isnan(epsilon) else max(0.0, epsilon)


def _prv_epsilon(history: list[tuple[float, float, int]], delta: float) -> float:
    accountant = PRVAccountant()
    accountant.history = history
    epsilon = math.nan
    for error in PRV_EPSILON_ERRORS:
        epsilon = float(accountant.get_epsilon(delta=delta, eps_error=error))
        if not epsilon < 20 * error:
            break
    return epsilon


def _check(delta: float, sample_rate: float, steps: int, accountant: str) -> None:
    if not 0 < delta < 1:
        raise InputError(f"expected delta in (0, 1), got {delta}")
    if not 0 < sample_rate <= 1:
        raise InputError(f"expected sample_rate in (0, 1], got {sample_rate}")
    if steps < 0:
        raise InputError(f"expected steps >= 0, got {steps}")
    if accountant not in get_args(Accountant):
        choices = ", ".join(get_args(Accountant))
        raise InputError(f"expected accountant one of {choices}, got {accountant!r}")
