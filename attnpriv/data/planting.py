"""Made-up secrets in training data, to find out how well a model remembers them.

How they are worded is in ``attnpriv.planted``. Not covered: real secrets, which have other words,
and may be easier or harder to remember.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

from attnpriv.config import require_count, require_seed
from attnpriv.data.records import Dataset, Span, Texts
from attnpriv.errors import InputError
from attnpriv.planted import beginning, is_planted, new_secret

SECRET = "SECRET"  # what kind of personal data it is, where the data marks such data
MOST = 10_000


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
        marks = [(Span(len(beginning(text)), len(text), SECRET),) for text in texts]
        spans = (*data.spans, *_repeated(marks, often))
    return replace(
        data,
        texts=(*data.texts, *_repeated(texts, often)),
        labels=(*data.labels, *_repeated(labels, often)),
        spans=spans,
    )


def _repeated(values: Sequence[Any], often: Sequence[int]) -> list[Any]:
    return [value for value, count in zip(values, often, strict=True) for _ in range(count)]
