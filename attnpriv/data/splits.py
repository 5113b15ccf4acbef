"""Which rows a model is trained on, and which are held out.

A share of the rows is chosen **by content**: a row's side is a function of its own text and of a
public key, and of nothing else. Rows that come or go move no other row, equal texts are on one
side, and a later version of the file can still be told apart: what is on the held-out side of it
was never trained on. The record of such a split is the key; it says nothing about any record.

A number of rows is chosen **by shuffling**, which keeps the number, and any row that comes or goes
moves others: in another file nothing is known of such a split.
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
    """What is known of the rows of a data set and a training.

    Attributes:
        trained: rows that were trained on.
        held_out: rows that were not.
        unknown: rows that were trained on if they stood in the training data, in a file that is
            not the training data.
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
    """Whether a split is by content, so that it also says something of other files."""
    return "salt" in rule or rule.get("rule") == CONTENT


def split_rows(texts: Sequence[str], rule: Mapping[str, Any]) -> Rows:
    """The training and the held-out rows by the record of a split.

    Records of earlier versions are read as they were meant: a share without ``rule`` was shuffled,
    and a ``salt`` without it went by the text as it stands.

    Raises:
        InputError: nobody knows the rule, or no shuffled row would be left on one side.
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
    """The same, with rows on both sides.

    Raises:
        InputError: there are none on one side.
    """
    train, held_out = split_rows(texts, rule)
    if not train or not held_out:
        sizes = {name: size for name, size in rule.items() if name not in ("rule", "salt", "seed")}
        name, size = sizes.popitem()
        raise InputError(f"expected {name} to leave rows on both sides of {len(texts)}, got {size}")
    return train, held_out


def split_indices(size: int, train_size: float, seed: int) -> Rows:
    """Shuffle the row numbers and cut them into training and held-out rows.

    Args:
        size: number of rows N.
        train_size: share of the rows if below 1, else their number; the share is rounded down.
        seed: of ``random.Random``, whose shuffle is stable across Python versions.

    Raises:
        InputError: either part would be empty.
    """
    count = int(size * train_size) if train_size < 1 else int(train_size)
    if not 0 < count < size or (train_size >= 1 and count != train_size):
        raise InputError(
            f"expected train_size to leave rows on both sides of {size}, got {train_size}"
        )
    rows = list(range(size))
    random.Random(seed).shuffle(rows)
    return rows[:count], rows[count:]


def folded(text: str) -> str:
    r"""A text without what a copy of it may change: case, white space, forms of a character.

    >>> folded("Call  ME\r\n") == folded(" call me")
    True
    """
    # Decomposed before its case goes: what a sign stands for may have one, as № and ™ do.
    caseless = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", caseless).split())


def assign_held_out(
    texts: Iterable[str], share: float, salt: str, read: Callable[[str], str] = folded
) -> list[bool]:
    """Whether each text is held out, by a keyed hash of this text and of nothing else.

    About ``share`` of distinct texts is. The label takes no part: a record whose label is mended
    stays where it was, and so do the copies of one text.

    Args:
        texts: one a record.
        share: in (0, 1).
        salt: 1 to 64 bytes of UTF-8, public; fixed before anyone looks at the data.
        read: what of a text is hashed.

    Raises:
        InputError: the share or the salt is out of range.

    Not guaranteed: the share against somebody who writes records knowing the salt; they can put all
    of them into one part. The privacy of the others does not suffer from it. Texts that differ by
    more than ``folded`` undoes may lie on different sides, however near they are.
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
