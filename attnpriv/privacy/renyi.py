"""Rényi differential privacy of one Poisson-subsampled Gaussian step, and ε from it.

For adding or removing one record: P = (1−q)·N(0, σ²) + q·N(1, σ²) against Q = N(0, σ²), whose order
α costs ``ln E_Q[(P/Q)^α] / (α−1)`` (Mironov, Talwar and Zhang 2019, arXiv:1908.10530). Every value
is an upper bound for all σ and q, and finite or infinite, never NaN.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

Array = NDArray[np.float64]

# Dense where ordinary schedules have their best order; the powers of two are for tiny losses.
ORDERS: Array = np.array(
    [*(1 + tenth / 10 for tenth in range(1, 100)), *range(12, 64), *(2.0**k for k in range(6, 31))]
)
POINTS_PER_DEVIATION = 8
DEVIATIONS = 13  # of a Gaussian beyond which there is less than 1e-37 of it
MOST_POINTS = 2**16  # in one integral; beyond, the order costs what it does without sampling
MARGIN = 1 + 1e-9  # more than what rounding takes off an integral


def step_rdp(noise_multiplier: float, sample_rate: float, orders: Array = ORDERS) -> Array:
    """Rényi DP of one step at each order α > 1; σ ≥ 0 and q in (0, 1]."""
    return _step_rdp(float(noise_multiplier), float(sample_rate), tuple(orders.tolist()))


def epsilon_from_rdp(rdp: Array, delta: float, orders: Array = ORDERS) -> float:
    """The ε at ``delta`` that follows at the best order, at least 0.

    Proposition 12 of Canonne, Kamath and Steinke 2020 (arXiv:2004.00010).
    """
    epsilons = rdp + np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    return max(0.0, float(epsilons.min()))


@lru_cache(maxsize=1024)
def _step_rdp(noise: float, rate: float, orders: tuple[float, ...]) -> Array:
    with np.errstate(over="ignore", divide="ignore"):
        unsampled: Array = np.array(orders) / 2 / np.float64(noise) / np.float64(noise)
    if rate == 1:
        return unsampled
    sampled = [_sampled_rdp(noise, rate, order) for order in orders]
    return np.minimum(unsampled, sampled)


def _sampled_rdp(noise: float, rate: float, order: float) -> float:
    """The integral by the trapezoidal rule, whose error for smooth Gaussian tails vanishes."""
    if not order <= MOST_POINTS / POINTS_PER_DEVIATION * noise:
        return math.inf
    # In deviations: the integrand is a mixture of Gaussians at 0 up to the order.
    last = order / noise + DEVIATIONS
    y = np.arange(-DEVIATIONS, last, 1 / POINTS_PER_DEVIATION)
    loss = losses(y, noise, rate)
    excess = logsumexp(_log_excess(loss, order) - y**2 / 2)
    excess -= math.log(POINTS_PER_DEVIATION * math.sqrt(2 * math.pi))
    return float(np.logaddexp(0, excess)) * MARGIN / (order - 1)


def losses(y: Array, noise: float, rate: float) -> Array:
    """The loss ln P/Q at y·σ, of full relative precision near 0."""
    exponent = y / noise - 0.5 / noise / noise
    if rate == 1:
        return exponent
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        small = np.log1p(rate * np.expm1(exponent))
    return np.where(exponent < 1, small, np.logaddexp(math.log1p(-rate), math.log(rate) + exponent))


def _log_excess(loss: Array, order: float) -> Array:
    """ln(r^α − 1 − α(r − 1)) with ln r the loss; what is taken off has expectation 0.

    It leaves nothing below 0, so that no digits cancel however rare and small the losses are.
    """
    scaled = order * loss
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        series = [(order**k - order) / math.factorial(k) * loss ** (k - 2) for k in range(2, 6)]
        near = 2 * np.log(np.abs(loss)) + np.log(np.sum(series, axis=0))
        middle = np.log(np.expm1(scaled) - order * np.expm1(loss))
        far = scaled + np.log1p((order - 1) * np.exp(-scaled) - order * np.exp(loss - scaled))
    return np.select([np.abs(scaled) < 1e-2, scaled < 30], [near, middle], far)
