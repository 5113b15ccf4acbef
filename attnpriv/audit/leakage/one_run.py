"""A lower bound on ε from one training run with canaries."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import binom

from attnpriv.errors import InputError

BISECTIONS = 60  # halves the bracket below the resolution of a float


def one_run_epsilon_lower_bound(
    canaries: int, guesses: int, correct: int, delta: float, confidence: float = 0.95
) -> float:
    """The largest ε that one run's guesses about its canaries refute.

    Each canary was included by an independent fair coin; the attack guessed for some of them
    whether they were in, and abstained for the rest.

    >>> round(one_run_epsilon_lower_bound(1000, 100, 100, 1e-5), 3)
    3.465
    >>> round(one_run_epsilon_lower_bound(1000, 100, 95, 1e-5), 3)
    2.165
    >>> round(one_run_epsilon_lower_bound(10000, 1000, 900, 1e-5), 3)
    2.015

    Args:
        canaries: m, how many canaries there were.
        guesses: r, for how many the attack made a guess.
        correct: v, how many guesses were right.
        delta: δ of the claim under test, in [0, 1).
        confidence: of the bound, in (0, 1).

    Returns:
        ε >= 0; 0.0 where the guesses are no better than the coin, and where none was made.

    Raises:
        InputError: counts are not 0 <= correct <= guesses <= canaries, or δ or the confidence is
            out of range.

    Claim: if training was (ε', δ)-DP with ε' below the returned value, guesses this good had
    probability at most 1 - confidence. Condition: the canaries' coins are independent of
    everything else and of each other, and the guesses were fixed before they were scored. Not
    covered: a small bound proves nothing, and nothing above ``one_run_epsilon_ceiling`` can be
    shown with these guesses.
    Source: Steinke, Nasr and Jagielski 2023 (arXiv:2305.08846), for (ε, δ)-DP.
    """
    check_guesses(canaries, guesses, correct)
    if not 0 <= delta < 1:
        raise InputError(f"expected delta in [0, 1), got {delta}")
    check_confidence(confidence)
    allowed = 1 - confidence
    if correct == 0 or _p_value(canaries, guesses, correct, delta, 0.0) > allowed:
        return 0.0
    low, high = 0.0, one_run_epsilon_ceiling(guesses, confidence)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _p_value(canaries, guesses, correct, delta, middle) <= allowed:
            low = middle
        else:
            high = middle
    return low


def one_run_epsilon_ceiling(guesses: int, confidence: float = 0.95) -> float:
    """The lower bound that a perfect attack with this many guesses reaches at δ = 0.

    >>> round(one_run_epsilon_ceiling(100), 2), round(one_run_epsilon_ceiling(1000), 2)
    (3.49, 5.81)

    Raises:
        InputError: guesses < 0, or the confidence is out of range.
    """
    if guesses < 0:
        raise InputError(f"expected guesses >= 0, got {guesses}")
    check_confidence(confidence)
    if guesses == 0:
        return 0.0
    # logit(p) = log(p/(1-p)) with p = (1-confidence)^(1/r), written so that 1-p keeps its digits.
    log_p = math.log(1 - confidence) / guesses
    return max(0.0, log_p - math.log(-math.expm1(log_p)))


def _p_value(m: int, r: int, v: int, delta: float, epsilon: float) -> float:
    """The probability of v or more right guesses out of r under an (ε, δ)-DP training."""
    q = 1 / (1 + math.exp(-epsilon))
    beta = binom.sf(v - 1, r, q)
    i = np.arange(1, v + 1)
    alpha = np.max((binom.cdf(v - 1, r, q) - binom.cdf(v - i - 1, r, q)) / i)
    return min(1.0, float(beta + 2 * m * delta * alpha))


def check_guesses(canaries: int, guesses: int, correct: int) -> None:
    """Raise InputError unless 0 <= correct <= guesses <= canaries."""
    if not 0 <= correct <= guesses <= canaries:
        raise InputError(
            "expected 0 <= correct <= guesses <= canaries, "
            f"got correct={correct}, guesses={guesses}, canaries={canaries}"
        )


def check_confidence(confidence: float) -> None:
    """Raise InputError unless a confidence is between 0 and 1."""
    if not 0 < confidence < 1:
        raise InputError(f"expected confidence in (0, 1), got {confidence}")
