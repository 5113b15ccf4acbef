"""Made-up secrets in training data, to find out how well a model remembers them.

A planted record is known by its words, so that nothing but the data says which secrets there are.
Not covered: real secrets, which have other words, and may be easier or harder to remember.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from attnpriv.config import require_count, require_seed
from attnpriv.data.records import Dataset, Span, Texts
from attnpriv.errors import InputError

WORDS = (
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo", "sierra", "tango",
    "uniform", "victor", "whiskey", "xray", "yankee", "zulu",
)  # fmt: skip
LENGTH = 4  # words of a secret: 26^4 are 457 thousand, or 18.8 bits
SECRET = "SECRET"  # what kind of personal data it is, where the data marks such data
MOST = 10_000
_WORD = f"(?:{'|'.join(WORDS)})"
PLANTED = re.compile(rf"planted secret \d+ is {_WORD}(?: {_WORD}){{{LENGTH - 1}}}")


def plant(
    data: Dataset, secrets: int = 20, repetitions: Sequence[int] = (1, 4, 16), seed: int = 0
) -> Texts:
    """The data with planted secrets after its own records, each with a random class.

    Args:
        data: labelled texts, without planted secrets.
        secrets: how many there are for each number of repetitions.
        repetitions: how often each of them stands in the data.
        seed: of the secrets and their classes.

    Raises:
        InputError: a number is out of range, repetitions has doubles, the records are no texts, or
            there are planted secrets already.
    """
    if not isinstance(data, Texts):
        raise InputError(f"expected texts to plant secrets in, got {data.kind}s")
    require_seed("seed", seed)
    for count in (secrets, *repetitions):
        require_count("secrets and repetitions", count)
    if not repetitions or len({*repetitions}) != len(repetitions):
        raise InputError(f"expected different numbers of repetitions, got {[*repetitions]}")
    if (rows := secrets * sum(repetitions)) > MOST:
        raise InputError(f"expected at most {MOST} planted records, got {rows}")
    if any(map(is_planted, data.texts)):
        raise InputError(f"{data.name} has planted secrets already")
    rng = Random(seed)
    often = [count for count in repetitions for _ in range(secrets)]
    texts = [new_secret(number, rng) for number in range(len(often))]
    labels = [rng.randrange(len(data.label_names)) for _ in often]
    spans = None
    if data.spans is not None:
        marks = [(Span(len(_beginning(text)), len(text), SECRET),) for text in texts]
        spans = (*data.spans, *_repeated(marks, often))
    return replace(
        data,
        texts=(*data.texts, *_repeated(texts, often)),
        labels=(*data.labels, *_repeated(labels, often)),
        spans=spans,
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
        found[f"{_beginning(text)}{_words(rng)}"] = None
    return [*found][1:]


def _words(rng: Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(LENGTH))


def _beginning(text: str) -> str:
    return text[: text.index(" is ") + 4]


def _repeated(values: Sequence[Any], often: Sequence[int]) -> list[Any]:
    return [value for value, count in zip(values, often, strict=True) for _ in range(count)]
