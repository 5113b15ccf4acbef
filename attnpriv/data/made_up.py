"""Texts that nobody wrote, for canaries: words that no language has, with random classes."""

from __future__ import annotations

from random import Random

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
SYLLABLES, WORDS = 3, 6  # of a word, and of a text: 2^110 texts, so that none comes twice


def made_up_texts(count: int, classes: int, seed: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """So many texts, and a class for each, all equally likely.

    Args:
        count: of texts.
        classes: number of classes K.
        seed: of both.
    """
    rng = Random(f"made-up texts of seed {seed}")
    texts = tuple(" ".join(_word(rng) for _ in range(WORDS)) for _ in range(count))
    return texts, tuple(rng.randrange(classes) for _ in range(count))


def _word(rng: Random) -> str:
    return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(SYLLABLES))
