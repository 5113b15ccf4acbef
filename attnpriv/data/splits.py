"""Which rows a model is trained on, and which are held out.

A share of the rows is chosen **by content**: the side of a row depends on its own text and a public
key, and on nothing else. Adding or removing rows moves no other row, and equal texts are on one
side. So the rows of a later version of the file can still be told apart: those on its held-out side
were never trained on. Such a split is recorded by its key, which says nothing about any record.

A number of rows is chosen **by shuffling**, which gives exactly that number. But adding or removing
a row moves others, so nothing is known about the rows of another file.
"""

from __future__ import annotations

import hashlib
import random
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnpriv.errors import InputError

CONTENT = "content"
Rows = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Split:
    """Which rows of a data set a model was trained on, as far as that is known.

    Attributes:
        trained: rows that were trained on.
        held_out: rows that were not.
        unknown: rows of a file that is not the training data, which were trained on if the training
            data contained them too.
    """

    trained: list[int]
    held_out: list[int]
    unknown: list[int]


def split_rule(train_size: float, seed: int) -> dict[str, Any]:
    """The record of a split: by content for a share below 1, else by shuffling.

    >>> split_rule(0.8, 0)
    {'rule': 'content', 'train_size': 0.8, 'seed': 0}
    """
    by_content = {"rule": CONTENT} if train_size < 1 else {}
    return {**by_content, "train_size": train_size, "seed": seed}


def tells_rows_apart(rule: Mapping[str, Any]) -> bool:
    """Whether a split is by content, so that it also tells the rows of other files apart."""
    return "salt" in rule or rule.get("rule") == CONTENT


def split_rows(texts: Sequence[str], rule: Mapping[str, Any]) -> Rows:
    """The training and the held-out rows, from the record of a split.

    Records of earlier versions keep their meaning: without a ``rule``, a share was shuffled, and a
    ``salt`` hashed the text exactly as it stands.

    Raises:
        InputError: the rule is unknown, or a shuffled split would leave no row on one side.
    """
    if rule.get("rule", CONTENT) != CONTENT:
        raise InputError(f"expected a split by {CONTENT}, got {rule['rule']!r}")
    if not tells_rows_apart(rule):
        return split_indices(len(texts), rule["train_size"], rule["seed"])
    if "salt" in rule:
        share, salt = rule["validation_share"], rule["salt"]
    else:
        share, salt = 1 - rule["train_size"], f"attnpriv train {rule['seed']}"
    read = folded if "rule" in rule else str
    held_out = assign_held_out(texts, share, salt, read)
    rows = range(len(texts))
    return [i for i in rows if not held_out[i]], [i for i in rows if held_out[i]]


def split_both(texts: Sequence[str], rule: Mapping[str, Any]) -> Rows:
    """As ``split_rows``, with rows on both sides.

    Raises:
        InputError: one side has no rows.
    """
    train, held_out = split_rows(texts, rule)
    if not train or not held_out:
        sizes = {name: size for name, size in rule.items() if name not in ("rule", "salt", "seed")}
        name, size = sizes.popitem()
        raise InputError(
            f"expected {name} to leave rows to train on and rows to hold out, got {size} of "
            f"{len(texts)} rows"
        )
    return train, held_out


def split_indices(size: int, train_size: float, seed: int) -> Rows:
    """Shuffle the row numbers and cut them into training and held-out rows.

    Args:
        size: number of rows N.
        train_size: share of the rows if below 1, else their number; the share is rounded down.
        seed: seed of ``random.Random``, whose shuffle is the same in all versions of Python.

    Raises:
        InputError: either part would be empty.
    """
    count = int(size * train_size) if train_size < 1 else int(train_size)
    if not 0 < count < size or (train_size >= 1 and count != train_size):
        raise InputError(
            f"expected train_size to leave rows to train on and rows to hold out, got {train_size} "
            f"of {size} rows"
        )
    rows = list(range(size))
    random.Random(seed).shuffle(rows)
    return rows[:count], rows[count:]


def folded(text: str) -> str:
    r"""A text without what may change in a copy of it: case, white space, forms of a character.

    >>> folded("Call  ME\r\n") == folded(" call me")
    True
    """
    # Decomposed first: signs such as № and ™ become letters, which have a case to remove.
    caseless = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", caseless).split())


def assign_held_out(
    texts: Iterable[str], share: float, salt: str, read: Callable[[str], str] = folded
) -> list[bool]:
    """Whether each text is held out, by a keyed hash of this text and of nothing else.

    About ``share`` of the distinct texts are. The label plays no part: a record whose label is
    corrected stays on its side, and all copies of a text are on the same side.

    Args:
        texts: one per record.
        share: in (0, 1).
        salt: 1 to 64 bytes of UTF-8; public, and fixed before anyone looks at the data.
        read: gives the form of a text that is hashed.

    Raises:
        InputError: the share or the salt is out of range.

    Not guaranteed: the share, against somebody who writes records knowing the salt; they can put
    all of theirs on one side. The privacy of the others does not suffer from it. Texts that differ
    by more than ``folded`` removes may be on different sides, however similar they are.
    """
    if not 0 < share < 1:
        raise InputError(f"expected share in (0, 1), got {share}")
    key = salt.encode()
    if not 1 <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise InputError(f"expected a salt of 1 to 64 bytes, got {len(key)}")

    def position(text: str) -> int:
        content = read(text).encode(errors="surrogatepass")
        return int.from_bytes(hashlib.blake2b(content, digest_size=8, key=key).digest())

    return [position(text) < share * 2**64 for text in texts]
