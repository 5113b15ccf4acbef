"""The formulas that bound hardened attention, as plain functions on numbers.

Setting: logits ``z = q·k/√d`` are clipped to ``[-c, c]``, divided by the temperature ``τ``, masked,
and put through a softmax over the ``n`` unmasked keys. The clip ``relative`` keeps logits within 2c
of each other instead, which is the same up to a shift that the softmax ignores. Everywhere
``x = 2c/τ``, so that the largest ratio between two weights of a row is ``e^x``. ``c = inf`` means
unclipped logits and gives the vacuous bound; ``c = 0`` gives the uniform row.

What the formulas do not say:

* A deterministic forward pass is not differentially private, whatever its temperature and clip.
* Layers compose: a bound on one layer's weights does not bound what a whole network passes on.
* The formulas hold in exact arithmetic. Rounding adds a relative error of a few units in the last
  place.
"""

from __future__ import annotations

import math
from numbers import Integral

from attnpriv.errors import InputError

LARGEST_COUNT = 2**53  # of keys; up to here a float holds every whole number


def weight_bounds(c: float, tau: float, n: int) -> tuple[float, float]:
    """Smallest and largest value that one attention weight can take.

    Claim: ``1/(1+(n-1)e^x) <= p <= 1/(1+(n-1)e^-x)`` for any query and any n keys; both are
    attained. Not covered: several weights at once (see ``mass_bound``).

    >>> low, high = weight_bounds(2.0, 2.0, 4)
    >>> round(low, 6), round(high, 6)
    (0.043165, 0.711235)
    >>> weight_bounds(math.inf, 1.0, 4)
    (0.0, 1.0)

    Raises:
        InputError: c < 0, tau <= 0, n < 1 or not a whole number, or one of them is NaN. The same
            holds for every function here.
    """
    inverse = _inverse_ratio(c, tau)
    _check_count("n", n, 1)
    low = 1.0 if n == 1 else inverse / (inverse + (n - 1))
    return low, 1.0 / (1.0 + (n - 1) * inverse)


def mass_bound(c: float, tau: float, n: int, k: int) -> float:
    """Largest total weight that any k keys, such as the sensitive ones, can attract.

    Claim: ``k/(k+(n-k)e^-x)`` for any input with n unmasked keys; attained.

    >>> round(mass_bound(2.0, 2.0, 32, 4), 4)
    0.5135
    >>> mass_bound(1.0, 1.0, 5, 0)
    0.0

    Raises:
        InputError: c < 0, tau <= 0, n < 1, or k outside [0, n].
    """
    inverse = _inverse_ratio(c, tau)
    _check_count("n", n, 1)
    _check_count("k", k, 0, n)
    return k / (k + (n - k) * inverse) if k else 0.0


def lift_bound(c: float, tau: float, n: int, k: int) -> float:
    """Largest ratio of the mass on k given keys to their uniform share k/n.

    Claim: ``n/(k+(n-k)e^-x)`` for any input with n unmasked keys; attained.

    >>> round(lift_bound(2.0, 2.0, 32, 4), 2)
    4.11

    Raises:
        InputError: c < 0, tau <= 0, n < 1, or k outside [1, n].
    """
    _check_count("k", k, 1)
    return mass_bound(c, tau, n, k) * n / k


def total_variation_bound(c: float, tau: float) -> float:
    """Largest total variation between two weight rows over the same number of keys.

    Claim: ``tanh(c/τ)`` for any two inputs of the same n; attained for even n. The L1 distance is
    at most twice that. Not covered: rows of different lengths.

    >>> round(total_variation_bound(1.0, 1.0), 4)
    0.7616

    Raises:
        InputError: c < 0 or tau <= 0.
    """
    return math.tanh(_scaled(c, tau))


def single_logit_total_variation_bound(c: float, tau: float) -> float:
    """Largest total variation between two rows of which only one logit differs: ``tanh(c/(2τ))``.

    Not covered: the clip ``relative``, under which a logit that becomes the largest moves others;
    there only ``total_variation_bound`` holds. Nor a changed token: it usually moves the logits of
    every query and, from the second layer on, of every key.

    >>> round(single_logit_total_variation_bound(1.0, 1.0), 4)
    0.4621

    Raises:
        InputError: c < 0 or tau <= 0.
    """
    return math.tanh(_scaled(c, tau) / 2)


def output_change_bound(c: float, tau: float, value_diameter: float) -> float:
    """Largest L2 change of one head's output while its values stay the same.

    Claim: ``tanh(c/τ)·diam(V)``, diam being the largest distance between two value vectors.
    Not covered: values that change. They depend on the input too, and then this bound fails.

    >>> round(output_change_bound(1.0, 1.0, 2.0), 4)
    1.5232

    Raises:
        InputError: c < 0, tau <= 0, or the diameter is negative or not finite.
    """
    if not (value_diameter >= 0 and math.isfinite(value_diameter)):
        raise InputError(f"expected value_diameter >= 0 and finite, got {value_diameter}")
    return total_variation_bound(c, tau) * value_diameter


def softmax_jacobian_bound(c: float, tau: float, n: int) -> float:
    """Largest spectral norm of the derivative of a row by its clipped logits.

    Claim: ``min(1/2, p_max)/τ``. Source: the softmax is 1/2-Lipschitz (arXiv:2510.23012).
    Not covered: how the logits depend on the input, which is unbounded for unclipped dot products
    (Kim et al. 2021, arXiv:2006.04710).

    >>> softmax_jacobian_bound(math.inf, 2.0, 8)
    0.25

    Raises:
        InputError: c < 0, tau <= 0, or n < 1.
    """
    return min(0.5, weight_bounds(c, tau, n)[1]) / tau


def selection_epsilon(c: float, tau: float, n: int) -> float:
    """The ε of drawing one key index from a row, as pure differential privacy.

    Claim: ``x + ln((1+(n-1)e^x)/(e^x+n-1)) <= 4c/τ`` with respect to any change of the input that
    keeps n. k draws compose to k times that. Source: the exponential mechanism (McSherry and
    Talwar 2007). Not covered: showing the weights themselves, or a change of n.

    >>> round(selection_epsilon(1.0, 1.0, 2), 6)
    2.0
    >>> selection_epsilon(1.0, 1.0, 1)
    0.0

    Raises:
        InputError: c < 0, tau <= 0, or n < 1.
    """
    inverse = _inverse_ratio(c, tau)
    _check_count("n", n, 1)
    if n == 1:
        return 0.0
    exponent = 2 * _scaled(c, tau)
    return exponent + math.log((inverse + (n - 1)) / (1 + (n - 1) * inverse))


def selection_rho(c: float, tau: float) -> float:
    """The ρ of drawing one key index from a row, as zero-concentrated differential privacy.

    Claim: ``(4c/τ)²/8`` for any n. Source: bounded range (Dong, Durfee and Rogers 2020,
    arXiv:1909.13830). Not covered: as ``selection_epsilon``.

    >>> selection_rho(1.0, 2.0)
    0.5

    Raises:
        InputError: c < 0 or tau <= 0.
    """
    bounded_range = 4 * _scaled(c, tau)
    return bounded_range * bounded_range / 8  # a power would raise where this gives infinity


def row_release_scale(c: float, tau: float, epsilon: float) -> float:
    """The scale of the Laplace noise on each entry that makes releasing one row pure ε-DP.

    Claim: ``2·tanh(c/τ)/ε`` with respect to any change of the input that keeps n; averages of rows
    over heads and queries need no more. Clipping, renormalising and ranking afterwards cost no ε.
    Not covered: a second release of the same row, which composes, and a change of n.

    >>> round(row_release_scale(1.0, 1.0, 0.5), 4)
    3.0464

    Raises:
        InputError: c < 0, tau <= 0, or epsilon <= 0.
    """
    if not epsilon > 0:
        raise InputError(f"expected epsilon > 0, got {epsilon}")
    return 2 * total_variation_bound(c, tau) / epsilon


def clip_radius(c: float, head_dim: int) -> float:
    """The norm ``√(c·√d)`` to which queries and keys are shortened so that ``|q·k|/√d <= c``.

    >>> clip_radius(4.0, 16)
    4.0

    Raises:
        InputError: c < 0 or head_dim < 1.
    """
    _check_count("head_dim", head_dim, 1)
    return math.sqrt(_scaled(c, 1.0) * math.sqrt(head_dim))


def _scaled(c: float, tau: float) -> float:
    """Check c and tau and return c/tau."""
    if not c >= 0:
        raise InputError(f"expected c >= 0, got {c}")
    if not (tau > 0 and math.isfinite(tau)):
        raise InputError(f"expected tau > 0 and finite, got {tau}")
    return c / tau


def _inverse_ratio(c: float, tau: float) -> float:
    """``e^(-2c/τ)``: in this form nothing overflows, and c = inf is the limit 0."""
    return math.exp(-2 * _scaled(c, tau))


def _check_count(name: str, value: int, low: int, high: int = LARGEST_COUNT) -> None:
    if not isinstance(value, Integral) or not low <= value <= high:
        raise InputError(f"expected {name} as a whole number in [{low}, {high}], got {value}")
