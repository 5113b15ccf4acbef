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
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import chain
from numbers import Integral

from attnpriv.errors import InputError

LARGEST_COUNT = 2**53  # of keys; up to here a float holds every whole number
MOST_KEYS = 10**6  # where a formula is a maximum over k terms


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


def span_total_variation_bound(c: float, tau: float, n: int, k: int) -> float:
    """Largest total variation between two rows of which only k given logits differ.

    Claim: for two inputs with the same n and the same k keys, with ``a = e^x``, ``m = n - k`` and t
    of the k logits rising while the other ``s = k - t`` fall, it is the largest over t from ⌈k/2⌉
    to k of ``(a-1)·t·(s(a+1)+B) / ((ta+s+B)(sa+t+B))``; attained. B is the total ``e^(z/τ)`` of the
    other keys, in units of its least value for one key: the number in ``[m, am]`` that is nearest
    to ``√a·(t-s) - s(a+1)``.
    Condition: only these logits change, which is so in the first layer for a query outside the k
    tokens, if each token enters it by itself. The clip is ``clamp``, ``tanh`` or ``norm``.
    Not covered: the clip ``relative``, under which a logit that becomes the largest moves others;
    later layers, where one token moves every logit. There only ``total_variation_bound`` holds.
    Source: derived here; the tests compare it with all vertices.

    >>> round(span_total_variation_bound(2.0, 2.0, 32, 4), 5)
    0.38852
    >>> span_total_variation_bound(2.0, 2.0, 32, 0)
    0.0

    Raises:
        InputError: c < 0, tau <= 0, n outside [1, 1,000,000], or k outside [0, n].
    """
    root = math.exp(-_scaled(c, tau))
    _check_count("n", n, 1, MOST_KEYS)
    _check_count("k", k, 0, n)
    if root == 0:  # without a clip one logit is enough to move the whole mass
        return 1.0 if k and n > 1 else 0.0
    return max((_variation(root, n - k, t, k - t) for t in range((k + 1) // 2, k + 1)), default=0.0)


def _variation(root: float, others: int, rising: int, falling: int) -> float:
    """One term of ``span_total_variation_bound``, everything divided by a; root is 1/√a."""
    inverse = root * root
    stationary = root * (rising - falling) - falling * (1 + inverse)
    rest = min(max(stationary, others * inverse), others)
    moved = (1 - inverse) * rising * (falling * (1 + inverse) + rest)
    return moved / ((rising + falling * inverse + rest) * (falling + rising * inverse + rest))


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


def span_selection_epsilon(c: float, tau: float, n: int, k: int) -> float:
    """The ε of drawing one key index from a row of which only k given logits can change.

    Claim: ``x + ln((1+(k-1)e^x+B)/(e^x+k-1+B))`` as pure differential privacy, with ``B = n - k``
    for k >= 2 and ``B = (n-1)e^x`` for k = 1; attained. It is 0 for k = 0, and that of
    ``selection_epsilon`` for k = n.
    Condition and what is not covered: as ``span_total_variation_bound``. Showing the weights
    themselves is not covered either.
    Source: the exponential mechanism (McSherry and Talwar 2007); the tests compare the formula with
    all vertices.

    >>> round(span_selection_epsilon(2.0, 2.0, 32, 4), 5)
    2.28733
    >>> round(span_selection_epsilon(2.0, 2.0, 32, 1), 5)
    1.97261

    Raises:
        InputError: c < 0, tau <= 0, n < 1, or k outside [0, n].
    """
    inverse = _inverse_ratio(c, tau)
    _check_count("n", n, 1)
    _check_count("k", k, 0, n)
    if k == 0 or n == 1:
        return 0.0
    exponent = 2 * _scaled(c, tau)
    if k == 1:
        return exponent + math.log((inverse + (n - 1)) / n)
    others = n - k
    # Both divided by a: in this form nothing overflows.
    return exponent + math.log(
        (inverse + (k - 1) + others * inverse) / (1 + (k - 1 + others) * inverse)
    )


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


def gate_bounds(c: float, tau: float) -> tuple[float, float]:
    """The smallest and the largest value of a gate ``σ(z/τ)`` whose z is clipped to [-c, c].

    Claim: ``(σ(-c/τ), σ(c/τ))``, both attained; their ratio is ``e^(c/τ)``.
    Source: as ``gate_lift_bound``.

    >>> [round(bound, 4) for bound in gate_bounds(2.0, 2.0)]
    [0.2689, 0.7311]

    Raises:
        InputError: c < 0 or tau <= 0.
    """
    least = math.exp(-_scaled(c, tau))
    return least / (1 + least), 1 / (1 + least)


def gate_lift_bound(c: float, tau: float, n: int, k: int) -> float:
    """Largest ratio of the mass of k sigmoid gates, normalised over n positions, to the share k/n.

    Claim: ``n/(k+(n-k)e^(-c/τ))`` for gates ``σ(z/τ)`` whose z is clipped to [-c, c]; attained. Two
    such gates differ by a factor of at most ``e^(c/τ)``, where two softmax weights of one row can
    differ by ``e^(2c/τ)``.
    Not covered: what the gates multiply, which is unbounded; the receptive field, by which a deep
    position sees its neighbours; gates on top of gates, whose largest ratios multiply.
    Source: gates of squeeze-and-excitation (arXiv:1709.01507) and CBAM (arXiv:1807.06521).

    >>> round(gate_lift_bound(2.0, 2.0, 32, 4), 4)
    2.2377

    Raises:
        InputError: c < 0, tau <= 0, n < 1, or k outside [1, n].
    """
    return lift_bound(_scaled(c, tau), 2.0, n, k)


def substitution_radius(contributions: Iterable[float], smallest: float, fixed: float = 0.0) -> int:
    """How many tokens anyone can substitute without changing which of two classes is ahead.

    Setting: one query that does not depend on the text pools the tokens, and each token's logit s
    and value v depend on that token alone. Then the class is ahead of the other one exactly if
    ``Σ u_i > 0``, where ``u_i = e^{s_i}·(g·v_i + b)`` is the contribution of token i, and g and b
    are the differences of the two classes' vectors and biases.
    Claim: the radius is the largest m for which ``Σ u_i - (the m largest u_i) + m·smallest > 0``.
    The class stays ahead under every substitution of at most m tokens, at any places and by any
    tokens of the vocabulary, and m + 1 substitutions can end that. It is 0 where the class is not
    ahead to begin with, and the number of tokens where no substitution suffices.
    With more than two classes take the smallest radius over the others.
    Condition: ``smallest`` is at most every u of the vocabulary. It does not depend on the place:
    where positions enter s or v, take the smallest over them too, and the radius is a lower bound.
    Not covered: contextual states, where one token moves the logits and values of others;
    normalisation after the pooling; inserted and deleted tokens, see ``edit_radius``; rounding in
    the contributions. (Their sum is rounded only once here, which keeps its sign.)
    Source: derived here; the tests compare it with an exhaustive search.

    >>> substitution_radius([2.0, 1.0, 0.5], smallest=-1.0)
    1

    Args:
        contributions: u_i of each token of the text.
        smallest: min u over the vocabulary.
        fixed: the contribution of what nobody can edit, such as the special tokens.

    Raises:
        InputError: one of the numbers is not finite. The same holds for the other radii.
    """
    ordered = _ordered(contributions, smallest, fixed)
    # Nobody substitutes a token that is below the smallest already.
    return _radius([*ordered, fixed], [(-u, min(u, smallest)) for u in ordered])


def deletion_radius(contributions: Iterable[float], fixed: float = 0.0) -> int:
    """How many tokens anyone can delete without changing which of two classes is ahead.

    Claim: the largest m for which ``Σ u_i - (the m largest u_i that are positive) > 0``; exact.
    Setting, condition and what is not covered: as ``substitution_radius``. A text that is empty and
    has nothing fixed counts as changed.

    >>> deletion_radius([2.0, 1.0, -0.5])
    1
    """
    ordered = _ordered(contributions, 0.0, fixed)
    return _radius([*ordered, fixed], [(-max(u, 0.0), 0.0) for u in ordered])


def insertion_radius(
    contributions: Iterable[float], smallest: float, most: int, fixed: float = 0.0
) -> int:
    """How many tokens anyone can insert without changing which of two classes is ahead.

    Claim: the largest m up to ``most`` for which ``Σ u_i + m·min(smallest, 0) > 0``; exact.
    Setting, condition and what is not covered: as ``substitution_radius``.

    >>> insertion_radius([2.0, 0.5], smallest=-1.0, most=10)
    2

    Args:
        contributions: u_i of each token of the text.
        smallest: min u over the vocabulary.
        most: how many can be inserted before they push tokens out of what the model reads.
        fixed: as in ``substitution_radius``.
    """
    _check_count("most", most, 0, MOST_KEYS)
    return _radius(
        [*_ordered(contributions, smallest, fixed), fixed], [(0.0, min(smallest, 0.0))] * most
    )


def edit_radius(
    contributions: Iterable[float], smallest: float, most: int, fixed: float = 0.0
) -> int:
    """How many substitutions, deletions and insertions, in any mixture, leave a class ahead.

    Claim: the largest m up to ``most`` for which
    ``Σ u_i - (the m largest u_i that are positive) + m·min(smallest, 0) > 0``. Up to m edits take
    at most m of the tokens away and bring at most m of the vocabulary in, and any such exchange
    needs no more than m edits: so the radius is exact.
    It also holds, as a lower bound, where the model reads only the beginning of a longer text and
    insertions push tokens out of it, or deletions bring others in: that beginning, too, loses at
    most m tokens and gains at most m of the vocabulary.
    Setting, condition and what is not covered: as ``substitution_radius``.

    >>> edit_radius([2.0, 1.0, 0.5], smallest=-1.0, most=10)
    1
    >>> edit_radius([2.0, 1.0], smallest=0.1, most=10, fixed=0.5)
    10

    Args:
        contributions: u_i of each token that the model reads of the text.
        smallest: min u over the vocabulary.
        most: the largest radius that is looked for.
        fixed: as in ``substitution_radius``.
    """
    _check_count("most", most, 0, MOST_KEYS)
    ordered = _ordered(contributions, smallest, fixed)
    removed = [-max(u, 0.0) for u in ordered[:most]]
    removed += [0.0] * (most - len(removed))
    return _radius([*ordered, fixed], [(u, min(smallest, 0.0)) for u in removed])


def vote_share(
    share: float,
    deletion_rate: float,
    *,
    substitutions: int = 0,
    deletions: int = 0,
    insertions: int = 0,
) -> float:
    """The smallest share of a text's randomly shortened copies that get a class after edits.

    Each token is deleted with chance p, independently. Claim: if a share s of a text's copies gets
    a class, then after so many edits at least ``p^(ins-del)·(s - 1 + p^(sub+del))`` do, for every
    classifier. For a number of edits whose bound is positive, all of them substitutions is worst.
    Source: Huang et al. 2023 (arXiv:2302.01757), theorem on edit distance. Copies that lose every
    edited token are the same before and after.

    >>> round(vote_share(0.99, 0.9, substitutions=2), 4)
    0.8

    Raises:
        InputError: the share is outside of [0, 1], the rate is not between 0 and 1, or a number of
            edits is not a whole number from 0.
    """
    if not 0 <= share <= 1:
        raise InputError(f"expected share in [0, 1], got {share}")
    if not 0 < deletion_rate < 1:
        raise InputError(f"expected 0 < deletion_rate < 1, got {deletion_rate}")
    edits = {"substitutions": substitutions, "deletions": deletions, "insertions": insertions}
    for name, number in edits.items():
        _check_count(name, number, 0)
    p = deletion_rate
    return float(p ** (insertions - deletions) * (share - 1 + p ** (substitutions + deletions)))


def _ordered(contributions: Iterable[float], *others: float) -> list[float]:
    """The contributions, largest first, all numbers checked."""
    ordered = sorted(map(float, contributions), reverse=True)
    for number in (*ordered, *others):
        if not math.isfinite(number):
            raise InputError(f"expected finite contributions, got {number}")
    return ordered


def _radius(summands: list[float], edits: Sequence[tuple[float, float]]) -> int:
    """How many of the edits, worst first, leave the sum above 0; each adds two summands."""

    def margin(edited: int) -> float:
        return math.fsum(chain(summands, *edits[:edited]))

    if margin(0) <= 0:
        return 0
    # The margin falls with each edit, so the first that is not positive is found by bisection.
    return bisect_left(range(1, len(edits) + 1), True, key=lambda m: margin(m) <= 0)


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
