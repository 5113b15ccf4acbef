"""How much ε a schedule of noised steps spends.

``rdp`` is Rényi differential privacy. ``prv`` is the least of three upper bounds: the composed
distribution of the privacy loss, which is nearly always the least; Rényi's; and the exact curve of
the Gaussian that saw every record at every step. docs/adr/0021 says why they are our own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import get_args

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr

from attnpriv.config import Accountant, is_number, is_whole
from attnpriv.errors import InputError
from attnpriv.privacy.loss_distribution import epsilon_from_losses
from attnpriv.privacy.renyi import epsilon_from_rdp, step_rdp
from attnpriv.rounding import digits_up, round_up

LARGEST_NOISE = 1e4
MOST_STEPS = 10**12
PRECISION = 1e-4  # of a noise multiplier, that a search for the smallest one gives away at most
# The last digits of a Fourier transform depend on where its numbers lie in memory, and so differ
# from process to process; ε is rounded up past them.
DIGITS = 10


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
    Not covered: any other look at the data, and floating-point attacks on the noise. Under ``prv``
    ε is that of removing a record. That adding one never costs more is proved for a single step and
    in Rényi's terms, and assumed of several steps, as by other accountants.
    """
    _check(delta, sample_rate, steps, accountant)
    if not (is_number(noise_multiplier) and 0 <= noise_multiplier < math.inf):
        raise InputError(f"expected noise_multiplier >= 0 and finite, got {noise_multiplier!r}")
    if steps == 0:
        return 0.0
    return _epsilon(
        float(noise_multiplier), float(delta), float(sample_rate), int(steps), accountant
    )


def noise_multiplier_for(
    epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: Accountant = "prv",
) -> float:
    """The smallest noise multiplier, to 0.01 %, whose schedule spends at most ``epsilon``.

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
    check_target(epsilon)
    if steps < 1:
        raise InputError(f"expected steps >= 1, got {steps}")

    def spent(by: Accountant) -> Callable[[float], float]:
        return lambda noise: epsilon_spent(noise, delta, sample_rate, steps, by)

    # RDP takes no time, and its noise is always enough and hardly ever twice what is needed.
    noise = smallest_noise(spent("rdp"), epsilon)
    if accountant != "rdp":
        noise = smallest_noise(spent(accountant), epsilon, start=noise or LARGEST_NOISE)
    if noise is None:
        raise InputError(
            f"epsilon {epsilon} cannot be reached in {steps} steps at sample rate {sample_rate}"
            f" and delta {delta} with the {accountant} accountant: take fewer steps, a smaller "
            "batch or a larger epsilon"
        )
    return noise


def smallest_noise(
    spent: Callable[[float], float], epsilon: float, start: float = 1.0
) -> float | None:
    """The smallest noise, to 0.01 %, with which ``spent``, which falls with it, is within ε.

    Args:
        spent: the ε that a noise spends.
        epsilon: the target, > 0.
        start: where to begin the search.

    Returns:
        A noise that meets the target; None where none up to 10,000 does.
    """

    def excess(halvings: float) -> float:
        # Neither 0 nor infinity has a place in an interpolation.
        return math.log(min(max(spent(enough * 2**-halvings) / epsilon, 1e-9), 1e9))

    enough = start
    while spent(enough) > epsilon:
        if enough >= LARGEST_NOISE:
            return None
        enough = min(2 * enough, LARGEST_NOISE)
    while spent(enough / 2) <= epsilon:
        enough /= 2
    noise: float = enough * 2 ** -brentq(excess, 0.0, 1.0, xtol=PRECISION / 4)
    while spent(noise) > epsilon:
        noise *= 1 + PRECISION / 4
    return noise


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
    check_target(epsilon)
    if not (is_whole(most) and most >= 1):
        raise InputError(f"expected most, a whole number >= 1, got {most!r}")

    def fits(steps: int) -> bool:
        spent = epsilon_spent(noise_multiplier, delta, sample_rate, steps, accountant)
        return spent <= epsilon

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


def check_target(epsilon: float) -> None:
    """Raise InputError unless ε is a number above 0 and finite."""
    if not (is_number(epsilon) and 0 < epsilon < math.inf):
        raise InputError(f"expected epsilon > 0 and finite, got {epsilon!r}")


def _check(delta: float, sample_rate: float, steps: int, accountant: str) -> None:
    if not (is_number(delta) and 0 < delta < 1):
        raise InputError(f"expected delta in (0, 1), got {delta!r}")
    if not (is_number(sample_rate) and 0 < sample_rate <= 1):
        raise InputError(f"expected sample_rate in (0, 1], got {sample_rate!r}")
    if not (is_whole(steps) and 0 <= steps <= MOST_STEPS):
        raise InputError(f"expected steps, a whole number from 0 to {MOST_STEPS}, got {steps!r}")
    if accountant not in get_args(Accountant):
        choices = ", ".join(get_args(Accountant))
        raise InputError(f"expected accountant one of {choices}, got {accountant!r}")


@lru_cache(maxsize=512)
def _epsilon(
    noise_multiplier: float, delta: float, sample_rate: float, steps: int, accountant: Accountant
) -> float:
    with np.errstate(over="ignore"):
        epsilon = epsilon_from_rdp(steps * step_rdp(noise_multiplier, sample_rate), delta)
    if accountant == "prv" and math.isfinite(epsilon):
        epsilon = min(epsilon, gaussian_epsilon(math.sqrt(steps) / noise_multiplier, delta))
    if accountant == "prv" and 0 < epsilon < math.inf:
        by_losses = epsilon_from_losses(noise_multiplier, delta, sample_rate, steps, epsilon)
        epsilon = min(epsilon, by_losses)
    return float(digits_up(epsilon, DIGITS))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The ε at which a Gaussian that one record moves by ``mu`` deviations has ``delta``.

    Theorem 8 of Balle and Wang 2018 (arXiv:1805.06530).
    """

    def exceeds(epsilon: float) -> bool:
        most, taken_off = map(float, log_ndtr([mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu]))
        # What is taken off is nearly all of it for a small mu: rounding must not take off more.
        ratio = taken_off + epsilon - most - 1e-15 * (8 + epsilon + abs(most) + abs(taken_off))
        return ratio >= 0 or most + math.log(-math.expm1(ratio)) > math.log(delta)

    if not exceeds(0.0):
        return 0.0
    # By Chernoff's inequality the upper end is enough.
    low, high = 0.0, mu * (mu / 2 + math.sqrt(-2 * math.log(delta)))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if exceeds(middle) else (low, middle)
    return high
