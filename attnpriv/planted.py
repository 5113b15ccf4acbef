"""Planted secrets: how they are worded, and what their ranks say. Both audits share this.

A planted record is known by its words, so that nothing but the data says which secrets there are. A
secret's rank is its place among other secrets of the same words, when a model's confidence in the
planted class orders them; its exposure is ``log2(candidates + 1) - log2(rank)``, in bits.

Source: Carlini, Liu, Erlingsson, Kos and Song 2019 (arXiv:1802.08232), sections 4 and 6, with ranks
among a sample of candidates.

Plain Python, without numpy and torch, since the client's audit has neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import log2
from random import Random

from attnpriv.errors import InputError
from attnpriv.estimates import Estimate
from attnpriv.rates import exact_interval
from attnpriv.verdicts import ERROR, Claim, Profile, allowed_tpr, for_groups

WORDS = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
)  # fmt: skip
LENGTH = 4  # words of a secret: 26^4 are 457 thousand, or 18.8 bits
_WORD = f"(?:{'|'.join(WORDS)})"
PLANTED = re.compile(rf"planted secret \d+ is {_WORD}(?: {_WORD}){{{LENGTH - 1}}}")
CANDIDATES = 127  # that a secret is ranked among: at most 7 bits are seen
FIRST = 8  # a secret is among the first if its rank is at most this: 1 of 16 is by chance
NUMBER = 1_000_000  # from which secrets are numbered that nobody trained on
KNOWN = 4.0  # log-odds by which the probe of the positive control prefers a secret
LARGEST = log2(CANDIDATES + 1)  # exposure of a secret with the first rank
LEAST_P = 0.001  # of secrets that nobody trained on
EXPECTED = (
    "a noisy probe that knows the secrets: p < 0.05 at each number of repetitions",
    f"as many secrets that nobody trained on: p of at least {LEAST_P:g}",
)


def is_planted(text: str) -> bool:
    """Whether a text is a planted record."""
    return PLANTED.fullmatch(text) is not None


def new_secret(number: int, rng: Random) -> str:
    """A record with a secret."""
    return f"planted secret {number} is {_words(rng)}"


def other_secrets(text: str, count: int, rng: Random) -> list[str]:
    """As many different records that differ from a planted one in their secrets alone.

    Raises:
        InputError: the text is no planted record.
    """
    if not is_planted(text):
        raise InputError("expected a planted record")
    found = {text: None}  # in the order in which they were drawn
    while len(found) <= count:
        found[f"{beginning(text)}{_words(rng)}"] = None
    return [*found][1:]


def beginning(text: str) -> str:
    """What stands before the secret in a planted record."""
    return text[: text.index(" is ") + 4]


def bits(rank: int) -> float:
    """The exposure of a rank."""
    return LARGEST - log2(rank)


def bits_by_chance() -> float:
    """The mean exposure of a secret that was not trained on."""
    return sum(map(bits, range(1, CANDIDATES + 2))) / (CANDIDATES + 1)


def allowed_exposure(profile: Profile) -> float:
    """The largest expected exposure, in bits, under pairs (ε, δ) that hold of the training.

    The exposure is at least ``log2((candidates + 1) / r)`` where the rank is at most r. So its
    mean is the sum over r of the chance of such a rank times ``log2((r + 1) / r)``.
    """
    ranks = range(1, CANDIDATES + 1)
    return sum(allowed_tpr(profile, r / (CANDIDATES + 1)) * log2((r + 1) / r) for r in ranks)


def place(
    repetitions: int, ranks: Sequence[int], claim: Claim | None, levels: int
) -> tuple[str, Estimate, float, float | None]:
    """How many secrets are among the first, with an exact interval; for the verdict."""
    found, chance = sum(rank <= FIRST for rank in ranks), FIRST / (CANDIDATES + 1)
    interval = exact_interval(found, len(ranks), ERROR / levels)
    allowed = allowed_tpr(for_groups(claim.profile, repetitions), chance) if claim else None
    name = f"share among the first {FIRST} at {repetitions} repetitions"
    return name, Estimate(found / len(ranks), *interval), chance, allowed


def _words(rng: Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(LENGTH))
