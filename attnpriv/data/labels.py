"""Labels: how a cell becomes the name of a class, and which names may be published.

The names of the classes stand in the run folder for anybody who has the model, and no ε covers
them. So names that look like anything else than classes are refused until the number of classes is
given, which confirms them. No message quotes a label.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from attnpriv.errors import InputError

MAX_CLASSES = 1000
MAX_LABEL_LENGTH = 100  # bytes
LONG_LABEL = 60  # characters; a longer name looks like a text
ROWS_A_CLASS = 10  # on average, from which a class of one row stands out
MOST_ALONE = 0.2  # share of all rows that may each have a class of its own, where classes are small
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def label_name(cell: object) -> str:
    r"""The name of the class that a cell stands for.

    Strings are brought into Unicode's form NFC, and white space, no-break spaces included, becomes
    single spaces within and none around. Numbers that are whole have no decimal point: 1.0 is
    ``1``. True and false are ``true`` and ``false``.

    Raises:
        InputError: the cell is missing, NaN or infinite, is no string, number or boolean, holds
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
        raise InputError(f"the label has over {MAX_LABEL_LENGTH} bytes; is this the text?")
    return name


def likeness(name: str) -> str:
    r"""What names have in common that differ in case, quotes, what is invisible or decimals only.

    >>> likeness("Good") == likeness('"good\u200b"'), likeness("1.0") == likeness("01")
    (True, True)
    """
    visible = "".join(c for c in name if unicodedata.category(c) != "Cf")
    folded = visible.strip(" \"'").casefold()
    if _NUMBER.fullmatch(folded):
        return str(Decimal(folded).normalize() + 0)  # + 0 makes a zero of -0
    return folded


def choose_classes(
    labels: Sequence[str],
    texts: Sequence[str],
    *,
    first_row: int,
    has_header: bool,
    confirmed: int | None,
) -> tuple[str, ...]:
    """The classes of a data set: its distinct labels, sorted.

    Args:
        labels: as ``label_name`` gives them, one a record.
        texts: one a record.
        first_row: the number of the first record in the file.
        has_header: whether the file names its columns, so that the first record is none.
        confirmed: the number of classes, by somebody who knows it; unusual names then pass.

    Raises:
        InputError: fewer than 2 or too many classes, another number than the confirmed one, or
            names that look like a header, like texts, or like two spellings of one class.
    """
    counts = Counter(labels)
    if not 2 <= len(counts) <= MAX_CLASSES:
        raise InputError(f"expected 2 to {MAX_CLASSES} classes, got {len(counts)}")
    if confirmed is None:
        doubt = (
            (None if has_header else _header(labels, counts, first_row))
            or _texts(labels, counts, texts)
            or _odd_label(labels, counts, first_row)
            or _spellings(labels, first_row)
            or _kinds(labels)
        )
        if doubt is not None:
            raise InputError(
                f"{doubt}; class names are published with the model: name the columns with "
                "--text-column and --label-column, mend the file, or, if every label is a class "
                f"of its own that may be published, confirm with --classes {len(counts)}"
            )
    elif confirmed != len(counts):
        raise InputError(f"expected {confirmed} classes, got {len(counts)}")
    return tuple(sorted(counts))


def number_labels(
    labels: Sequence[str], names: Sequence[str], first_row: int, has_header: bool
) -> tuple[int, ...]:
    """The number of each label's class among the classes of a trained model.

    A label that is none of the names is taken for the only one that is like it, if there is one.

    Raises:
        InputError: a label is none of them.
    """
    numbers = {name: number for number, name in enumerate(names)}
    alike = Counter(likeness(name) for name in names)
    like = {likeness(name): numbers[name] for name in names if alike[likeness(name)] == 1}
    found = [numbers.get(label, like.get(likeness(label))) for label in labels]
    if None in found:
        at = found.index(None)
        header = at == 0 and not has_header
        hint = "; if it is a header, name the columns with --text-column and --label-column"
        raise InputError(
            f"row {first_row + at}: the label is none of {', '.join(names)}{hint * header}"
        )
    return tuple(number for number in found if number is not None)


def utf8_size(text: str) -> int:
    """Bytes in UTF-8.

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


def _texts(labels: Sequence[str], counts: Counter[str], texts: Sequence[str]) -> str | None:
    """Why the labels look like texts, or like numbers of records, if they do."""
    classes, rows = len(counts), len(labels)
    if classes == 2:
        return None
    if 2 * classes > rows:
        return f"{classes} different labels in {rows} rows look like texts, not like classes"
    alone = _alone(counts)
    if alone > MOST_ALONE * rows:
        return f"{alone} of {rows} rows have a label of their own, as texts have"
    if classes > len(set(texts)):
        return f"there are more classes, {classes}, than different texts, as in swapped columns"
    return None


def _header(labels: Sequence[str], counts: Counter[str], first_row: int) -> str | None:
    if counts[labels[0]] == 1 and _alone(counts) <= max(1, MOST_ALONE * len(labels)):
        return f"row {first_row} may be a header: its label stands in no other row"
    return None


def _alone(counts: Counter[str]) -> int:
    return sum(count == 1 for count in counts.values())


def _odd_label(labels: Sequence[str], counts: Counter[str], first_row: int) -> str | None:
    """Why one of the labels looks like a text, if it does."""
    for row, label in enumerate(labels, first_row):
        if len(label) > LONG_LABEL:
            return f"row {row}: a label of over {LONG_LABEL} characters looks like a text"
        if counts[label] == 1 and len(labels) >= ROWS_A_CLASS * len(counts):
            return f"row {row}: a label that stands in one row alone may be a text"
    return None


def _spellings(labels: Sequence[str], first_row: int) -> str | None:
    seen: dict[str, tuple[int, str]] = {}
    for row, label in enumerate(labels, first_row):
        before, other = seen.setdefault(likeness(label), (row, label))
        if other != label:
            return (
                f"rows {before} and {row} have labels that differ in nothing but case, quotes, "
                "invisible characters or the way a number is written"
            )
    return None


def _kinds(labels: Sequence[str]) -> str | None:
    kinds = {likeness(label) for label in labels}
    if kinds & {"true", "false"} and any(map(_NUMBER.fullmatch, kinds)):
        return "some labels are numbers, and others true or false: is 1 true?"
    return None
