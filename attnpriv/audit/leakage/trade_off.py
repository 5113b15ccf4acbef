"""What guesses about the canaries of one run refute of a whole trade-off curve.

A curve says, for each true positive rate (TPR) of a test whether one canary was trained on, the
smallest false positive rate (FPR) that it can have. It says more than one (ε, δ), so that the same
guesses refute more: this is the f-DP audit of Mahloujifar, Melis and Chaudhuri 2024
(arXiv:2410.22235, algorithm 3).

Notation: m canaries, r guesses, v of them right.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import ndtr, ndtri

from attnpriv.audit.leakage.one_run import BISECTIONS, check_confidence, check_guesses
from attnpriv.errors import InputError
from attnpriv.privacy.accounting import gaussian_epsilon
from attnpriv.verdicts import LARGEST_EPSILON, Profile

Curve = Callable[[float], float]
"""From a TPR to the smallest FPR; convex, rising, its own mirror image at the other diagonal."""
LARGEST_MU = 40.0  # beyond, the two Gaussians overlap in no float


def curve_of(profile: Profile) -> Curve:
    """The curve of a mechanism of which pairs (ε, δ) are known.

    >>> round(curve_of(((1.0986123, 0.0),))(0.75), 6)  # ε = ln 3
    0.25
    """
    held = np.array([pair for pair in profile if pair[0] <= LARGEST_EPSILON]).reshape(-1, 2)
    factors, deltas = np.exp(held[:, 0]), held[:, 1]

    def smallest_fpr(tpr: float) -> float:
        steep, flat = (tpr - deltas) / factors, 1 - deltas - factors * (1 - tpr)
        return float(max(0.0, steep.max(initial=0.0), flat.max(initial=0.0)))

    return smallest_fpr


def gaussian_curve(mu: float) -> Curve:
    """The curve of one Gaussian that a record moves by ``mu`` of its deviations.

    Source: Dong, Roth and Su 2022 (arXiv:1905.02383), definition 2.6.
    """
    return lambda tpr: float(ndtr(ndtri(tpr) - mu))


def refutes(curve: Curve, canaries: int, guesses: int, correct: int, error: float) -> bool:
    """Whether guesses this good contradict a curve.

    Args:
        curve: of the training, if it keeps its claim.
        canaries: m.
        guesses: r, for how many canaries the attack made a guess.
        correct: v, how many guesses were right.
        error: the chance of a wrong contradiction.

    Raises:
        InputError: counts are not 0 <= correct <= guesses <= canaries.

    Claim: if no test whether one canary was trained on does better than the curve, then r guesses
    of which v or more are right, and which contradict it, have a chance of at most ``error``.
    Condition: each canary was included by its own fair coin, independent of everything else; r was
    chosen before the scores were seen; and the guesses were made from the outputs of the training.
    Not covered: a curve that is not contradicted may still be wrong.
    """
    check_guesses(canaries, guesses, correct)
    if guesses == 0:
        return False
    # If v right guesses had a chance above the error, these would be the shares of canaries that
    # are guessed right, and wrong, while at least i guesses are right; i falls from v to 0. A
    # canary whose coin is turned over makes a right guess wrong and leaves all others as they are.
    right, wrong = error * correct / canaries, error * (guesses - correct) / canaries
    for i in range(correct - 1, -1, -1):
        least = max(wrong, curve(min(1.0, right)))
        if least == wrong or right + wrong > guesses / canaries:
            break
        right += i / (guesses - i) * (least - wrong)
        wrong = least
    return right + wrong > guesses / canaries


def most_correct(curve: Curve, canaries: int, guesses: int, error: float) -> int:
    """The most right guesses that do not refute a curve; see ``refutes``."""
    low, high = 0, guesses + 1  # the first refutes nothing, the second cannot occur
    while high - low > 1:
        middle = (low + high) // 2
        if refutes(curve, canaries, guesses, middle, error):
            high = middle
        else:
            low = middle
    return low


def one_run_gaussian_epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """The ε of the noisiest Gaussian mechanism that one run's guesses do not refute.

    >>> round(one_run_gaussian_epsilon_lower_bound(1000, 100, 100, 1e-5), 3)
    5.549
    >>> round(one_run_gaussian_epsilon_lower_bound(1000, 100, 95, 1e-5), 3)
    3.323
    >>> round(one_run_gaussian_epsilon_lower_bound(10000, 1000, 900, 1e-5), 3)
    2.803

    Args:
        canaries: m, how many canaries there were.
        guesses: r, for how many the attack made a guess.
        correct: v, how many guesses were right.
        delta: δ at which ε is stated, in (0, 1).
        confidence: of the bound, in (0, 1).

    Returns:
        ε >= 0; 0.0 where the guesses are no better than the coin.

    Raises:
        InputError: as ``one_run.one_run_epsilon_lower_bound``, or δ is 0.

    Claim: if the training had the curve of a Gaussian mechanism whose ε at δ is below the returned
    value, guesses this good had a chance of at most 1 - confidence. Condition: as in ``refutes``.
    Not covered: another mechanism with the same (ε, δ) has another curve, so that an ε above the
    claimed one refutes the claim only if the training's curve is about a Gaussian's, as that of
    many noised steps is. ``refutes`` holds the guesses against the mechanism's own curve.
    """
    check_guesses(canaries, guesses, correct)
    if not 0 < delta < 1:
        raise InputError(f"expected delta in (0, 1), got {delta}")
    check_confidence(confidence)

    def refuted(mu: float) -> bool:
        return refutes(gaussian_curve(mu), canaries, guesses, correct, 1 - confidence)

    if not refuted(0.0):
        return 0.0
    low, high = 0.0, LARGEST_MU
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if refuted(middle) else (low, middle)
    return gaussian_epsilon(low, delta) if low > 0 else 0.0


def expected_correct(curve: Curve, canaries: int, guesses: int) -> float:
    """How many guesses are right, on average, if an attack is as good as a curve allows.

    The attack guesses for as many canaries that look trained on as for such that do not.
    """
    share = guesses / canaries
    low, high = 0.0, min(1.0, share)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if middle + curve(middle) < share else (low, middle)
    return guesses * high / share if share else 0.0
