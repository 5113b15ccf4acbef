"""Labels as they stand in a file: the class that a cell means. No message quotes one."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

from attnpriv.errors import InputError

MAX_LABEL_LENGTH = 100  # bytes
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def label_name(cell: object) -> str:
    r"""The name of the class that a cell stands for.

    Strings are brought into Unicode's form NFC. White space, no-break spaces included, becomes
    single spaces, and none at either end. Whole numbers lose their decimal point: 1.0 is ``1``.
    True and false are ``true`` and ``false``.

    Raises:
        InputError: the cell is missing, NaN or infinite, is not a string, number or boolean, holds
            control characters or is too long.

    >>> label_name(" very\u00a0good "), label_name(1.0), label_name(True)
    ('very good', '1', 'true')
    """
    if not isinstance(cell, str | int | float | None):
        raise InputError(
            f"expected a label that is a string or a number, got {type(cell).__name__}"
        )
    name = " ".join(unicodedata.normalize("NFC", _written(cell)).split())
    if not likeness(name) or likeness(name) == "nan":
        raise InputError("the label is missing")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InputError("the label holds a control character")
    if utf8_size(name) > MAX_LABEL_LENGTH:
        raise InputError(
            f"the label has over {MAX_LABEL_LENGTH} bytes; is this the column of the texts?"
        )
    return name


def likeness(name: str) -> str:
    r"""A form that is equal for names that differ only in case, quotes, invisibles or decimals.

    >>> likeness("Good") == likeness('"good\u200b"'), likeness("1.0") == likeness("01")
    (True, True)
    """
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    folded = visible.strip(" \"'").casefold()
    if NUMBER.fullmatch(folded):
        return str(Decimal(folded).normalize() + 0)  # + 0 makes a zero of -0
    return folded


def class_finder(names: Sequence[str]) -> Callable[[str], int | None]:
    """A function that gives the number of the class that a label means, or None for no class.

    A label that is none of the names means the only one that is like it, if there is one.

    >>> find = class_finder(["bad", "Good"])
    >>> find("good"), find("neutral")
    (1, None)
    """
    numbers = {name: number for number, name in enumerate(names)}
    alike = Counter(likeness(name) for name in names)
    like = {likeness(name): numbers[name] for name in names if alike[likeness(name)] == 1}
    return lambda label: numbers.get(label, like.get(likeness(label)))


def not_a_class(row: int, names: Sequence[str]) -> InputError:
    """The error for a label that means none of the classes of a trained model."""
    return InputError(f"row {row}: the label is none of {', '.join(names)}")


def utf8_size(text: str) -> int:
    """Number of bytes in UTF-8.

    Raises:
        InputError: the text holds half of a surrogate pair.
    """
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"lone surrogate at character {error.start}") from None


def _written(cell: str | int | float | None) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and math.isinf(cell):
        raise InputError("expected a label that is finite, got an infinite number")
    return str(int(cell)) if not math.isnan(cell) and cell == int(cell) else str(cell)
