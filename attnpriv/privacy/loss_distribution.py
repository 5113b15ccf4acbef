"""ε from the distribution of the privacy loss, composed by Fourier transform, with its rounding.

The accountant of Gopi, Lee and Wutschitz 2021 (arXiv:2106.02848): cut the loss of a step into cells
of width h, move the cells so that the mean stays, compose. Hoeffding's inequality bounds what the
cells move the sum. Two things differ from the published code, which trusts exact arithmetic:

- The transform's rounding is about 1e-16 of the largest chance, wherever it falls, and grows with
  the steps: it swamps a small δ. So the distribution is tilted first, multiplied by e^(θ·loss),
  which brings the losses that matter for δ to the middle (as in saddle-point methods), and the
  rounding is bounded (Higham 2002, Theorem 24.2) and added to δ, as is whatever is cut off.
- The number of cells is limited. Where h would have to be smaller, it is not, and ε pays for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.signal import lfilter
from scipy.special import logsumexp, ndtr

from attnpriv.privacy.renyi import ORDERS, losses, step_rdp

Array = NDArray[np.float64]

# What ε is read off with to spare: 0.01, less for small losses and more for useless ones.
ERROR = 0.01
SMALLEST_ERROR = 1e-9
LOSSES_PER_ERROR = 20  # at least
MOST_LOSSES_PER_ERROR = 1e5
MOST_CELLS = 2**21  # about 200 MB
LARGEST_LOSS = 1e5
COARSEST = 0.05  # cells in which the distribution is smooth
SMALLEST_DELTA = 1e-280  # below, the chances are no floats of full precision
SHARE_CUT = 1e-3  # of δ, for the cells and the tails
UNIT = 2.0**-53  # of rounding
# Of a whole curve: where its distributions are sharp, and what its ε may be too large by.
PROFILE_DELTAS = (1e-7, 1e-2)
PROFILE_ERROR = 5e-3


def epsilon_from_losses(
    noise_multiplier: float, delta: float, sample_rate: float, steps: int, at_most: float
) -> float:
    """An upper bound on ε at ``delta``; infinite for too small a δ, or too many steps or losses.

    Args:
        noise_multiplier: σ > 0.
        delta: δ in (0, 1).
        sample_rate: q in (0, 1].
        steps: at least 1.
        at_most: another upper bound on ε, which says how fine the cells have to be.

    The loss is that of removing a record, which costs no less than adding one.
    """
    fits = delta >= SMALLEST_DELTA and at_most <= LARGEST_LOSS
    if not fits or _errors_per_width(delta, steps) > MOST_CELLS / 8:
        return math.inf
    error = ERROR
    while at_most > MOST_LOSSES_PER_ERROR * error:
        error *= 10
    # The result is less than two errors too large.
    while error > SMALLEST_ERROR and at_most + 2 * error < LOSSES_PER_ERROR * error:
        error /= 10
    epsilon = math.inf
    while True:
        finer = _epsilon(noise_multiplier, delta, sample_rate, steps, error)
        if not finer < epsilon:
            return epsilon
        epsilon = finer
        if epsilon >= LOSSES_PER_ERROR * error or error <= SMALLEST_ERROR:
            return epsilon
        error /= 10


@dataclass(frozen=True)
class _Cells:
    """Losses (i − middle)·width for i < count; what lies below the first one counts as the first.

    Attributes:
        width: h.
        middle: the index of loss 0.
        count: their number.
        error: what they move the sum of all steps by, except with chance δ·SHARE_CUT/12.
    """

    width: float
    middle: int
    count: int
    error: float

    @property
    def losses(self) -> Array:
        return (np.arange(self.count, dtype=np.float64) - self.middle) * self.width


def deltas_from_losses(
    epsilons: Array, noise_multiplier: float, sample_rate: float, steps: int
) -> Array:
    """An upper bound on δ at each ε >= 0, at most 1; see ``epsilon_from_losses``.

    Each of the distributions is sharp at its own δ and a bound at every other.
    """
    least = np.ones(len(epsilons))
    for delta in PROFILE_DELTAS:
        if _errors_per_width(delta, steps) > MOST_CELLS / 8:
            continue
        cells = _cells(noise_multiplier, delta, sample_rate, steps, PROFILE_ERROR)
        if cells.width > COARSEST:
            continue
        total, spent = _composed(cells, noise_multiplier, delta, sample_rate, steps)
        # δ falls with ε: that of the next smaller loss is no less.
        places = np.searchsorted(total + cells.error, epsilons, side="right") - 1
        bounds = delta * (spent[np.maximum(places, 0)] + SHARE_CUT)
        least = np.where(places >= 0, np.minimum(least, bounds), least)
    return least


def _epsilon(noise: float, delta: float, rate: float, steps: int, error: float) -> float:
    cells = _cells(noise, delta, rate, steps, error)
    if cells.width > COARSEST:
        return math.inf
    total, spent = _composed(cells, noise, delta, rate, steps)
    read = _read(total, spent, 1 - SHARE_CUT, cells.width)
    return max(0.0, read + cells.error)


def _composed(
    cells: _Cells, noise: float, delta: float, rate: float, steps: int
) -> tuple[Array, Array]:
    """The losses of all steps together, and an upper bound on δ at each, in units of ``delta``."""
    tilt = _tilt(noise, delta, rate, steps)
    chances = _chances(cells, noise, rate)
    shift = _mean(noise, rate, cells.losses[0]) - float(chances @ cells.losses)
    # In logarithms: a tilt is up to 1e9, and what it leaves is a distribution again.
    with np.errstate(divide="ignore"):
        tilted = np.log(chances) + tilt * (cells.losses + shift)
    normaliser = float(logsumexp(tilted))
    tilted = np.exp(tilted - normaliser)
    composed = fft.irfft(fft.rfft(tilted) ** steps, cells.count)
    # Whole cells of the shift turn the circle, so that the window stays where the losses are.
    turns = round(steps * shift / cells.width)
    composed = np.roll(composed, (turns - (steps - 1) * cells.middle) % cells.count)
    total = cells.losses + (steps * shift - turns * cells.width)
    # From here on in units of δ. Where the exponent is cut, the rounding alone exceeds δ.
    scale = np.exp(np.minimum(steps * normaliser - tilt * total - math.log(delta), 300.0))
    rounding = 16 * (steps + 1) * math.log2(cells.count) * UNIT * float(np.linalg.norm(tilted))
    rounding *= math.sqrt(1 + 1 / (2 * tilt * cells.width))
    spent = _deltas(np.maximum(composed, 0) * scale, cells.width)
    spent *= 1 + UNIT * (steps * (256 + tilt * total[-1]) + 4 * cells.count)
    return total, spent + rounding * scale


def _cells(noise: float, delta: float, rate: float, steps: int, error: float) -> _Cells:
    """A window that the loss of a step, and of all, leaves with chances of δ·SHARE_CUT/8 and /4."""
    cut = delta * SHARE_CUT
    rdp = step_rdp(noise, rate)
    one = rdp + math.log(8 * steps / cut) / (ORDERS - 1)
    all_steps = steps * rdp + math.log(4 / cut) / (ORDERS - 1)
    largest = max(float(one.min()), float(all_steps.min()))
    errors_per_width = _errors_per_width(delta, steps)
    width = max(error / errors_per_width, 2 * largest / (MOST_CELLS - 2 * errors_per_width - 8))
    error = width * errors_per_width
    middle = math.ceil((largest + error) / width) + 1
    return _Cells(width, middle, fft.next_fast_len(2 * middle + 1, real=True), error)


def _errors_per_width(delta: float, steps: int) -> float:
    """Hoeffding's bound: a cell moves a loss by at most half its width, and not in the mean."""
    return math.sqrt(steps * math.log(12 / (delta * SHARE_CUT)) / 2)


def _tilt(noise: float, delta: float, rate: float, steps: int) -> float:
    """θ > 0 for which θ + 1 is about the best Rényi order."""

    def best(orders: Array) -> float:
        epsilons = steps * step_rdp(noise, rate, orders) - math.log(delta) / (orders - 1)
        return float(orders[np.argmin(epsilons)])

    return best(1 + (best(ORDERS) - 1) * np.geomspace(0.6, 1.7, 12)) - 1


def _chances(cells: _Cells, noise: float, rate: float) -> Array:
    """The chance of each cell, of full relative precision in both tails."""
    edges = (np.arange(1, cells.count + 1) - cells.middle - 0.5) * cells.width
    with np.errstate(over="ignore", divide="ignore"):
        small = np.log1p(np.maximum(np.expm1(edges) / rate, -1))
        large = edges + np.log1p((rate - 1) * np.exp(-np.maximum(edges, 0))) - math.log(rate)
    y = noise * np.where(edges < 1, small, large) + 0.5 / noise
    below = (1 - rate) * ndtr(y) + rate * ndtr(y - 1 / noise)
    above = (1 - rate) * ndtr(-y) + rate * ndtr(1 / noise - y)
    falls: Array = -np.diff(above, prepend=1.0)
    rises: Array = np.diff(below, prepend=0.0)
    return np.where(above < 0.5, falls, rises)


def _mean(noise: float, rate: float, least: float) -> float:
    """The mean loss of a step, none counted below ``least``."""
    y = np.arange(-13, 13, 1 / 32)
    weights = np.exp(-(y**2) / 2) / (32 * math.sqrt(2 * math.pi))
    without, with_record = (
        np.maximum(losses(y + shift, noise, rate), least) for shift in (0.0, 1 / noise)
    )
    return float(weights @ ((1 - rate) * without + rate * with_record))


def _deltas(chances: Array, width: float) -> Array:
    """δ at each loss: Σ chance·(1 − e^(loss − later loss)) over the later ones, all terms > 0."""
    others = lfilter([1.0], [1.0, -math.exp(-width)], chances[::-1])
    sums = np.cumsum(others)
    return -math.expm1(-width) * np.concatenate([[0.0], sums[:-1]])[::-1]


def _read(losses: Array, deltas: Array, delta: float, width: float) -> float:
    """The ε from which on δ is within its limit; between two losses it is linear in e^ε."""
    above = np.flatnonzero(~(deltas <= delta))
    if len(above) == 0:
        return float(losses[0])
    last = int(above[-1])
    if last + 1 == len(losses):
        return math.inf
    share = (deltas[last] - delta) / (deltas[last] - deltas[last + 1])
    return float(losses[last] + math.log1p(share * math.expm1(width)))
