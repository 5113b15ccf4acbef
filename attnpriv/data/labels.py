"""Which names of classes may be published.

The names of the classes stand in the run folder for anybody who has the model, and no ε covers
them. So names that do not look like classes are refused until the number of classes is given, which
confirms them. No message quotes a label.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attnpriv.errors import InputError
from attnpriv.labels import NUMBER, class_finder, likeness, not_a_class

MAX_CLASSES = 1000
LONG_LABEL = 60  # characters; a longer name looks like a text
ROWS_A_CLASS = 10  # on average; from here on, a class of a single row stands out
MOST_ALONE = 0.2  # share of all rows that may each have a class of its own, if classes are small


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
        labels: one per record, as ``label_name`` returns them.
        texts: one per record.
        first_row: the number of the first record in the file.
        has_header: whether the file names its columns, so that the first record is not a header.
        confirmed: the number of classes, if the user has given it; unusual names then pass.

    Raises:
        InputError: fewer than 2 or too many classes, a number other than the confirmed one, or
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
                "--text-column and --label-column, correct the file, or, if every label is a class "
                f"of its own that may be published, confirm it with --classes {len(counts)}"
            )
    elif confirmed != len(counts):
        raise InputError(f"expected {confirmed} classes, got {len(counts)}")
    return tuple(sorted(counts))


def number_labels(
    labels: Sequence[str], names: Sequence[str], first_row: int, has_header: bool
) -> tuple[int, ...]:
    """The number of each label's class among the classes of a trained model.

    Raises:
        InputError: a label means none of them, see ``class_finder``.
    """
    found = [*map(class_finder(names), labels)]
    if None in found:
        at = found.index(None)
        error = not_a_class(first_row + at, names)
        if at == 0 and not has_header:
            hint = "if it is a header, name the columns with --text-column and --label-column"
            raise InputError(f"{error}; {hint}")
        raise error
    return tuple(number for number in found if number is not None)


def _texts(labels: Sequence[str], counts: Counter[str], texts: Sequence[str]) -> str | None:
    """Why the labels look like texts, or like numbers of records, if they do."""
    classes, rows = len(counts), len(labels)
    if classes == 2:
        return None
    if 2 * classes > rows:
        return f"{classes} different labels in {rows} rows look like texts, not like classes"
    alone = _alone(counts)
    if alone > MOST_ALONE * rows:
        return f"{alone} of {rows} rows have a label of their own, as if labels were texts"
    if classes > len(set(texts)):
        return f"there are more classes ({classes}) than different texts, as if they were swapped"
    return None


def _header(labels: Sequence[str], counts: Counter[str], first_row: int) -> str | None:
    if counts[labels[0]] == 1 and _alone(counts) <= max(1, MOST_ALONE * len(labels)):
        return f"row {first_row} may be a header: no other row has its label"
    return None


def _alone(counts: Counter[str]) -> int:
    return sum(count == 1 for count in counts.values())


def _odd_label(labels: Sequence[str], counts: Counter[str], first_row: int) -> str | None:
    """Why one of the labels looks like a text, if it does."""
    for row, label in enumerate(labels, first_row):
        if len(label) > LONG_LABEL:
            return f"row {row}: a label of over {LONG_LABEL} characters looks like a text"
        if counts[label] == 1 and len(labels) >= ROWS_A_CLASS * len(counts):
            return f"row {row}: a label that no other row has may be a text"
    return None


def _spellings(labels: Sequence[str], first_row: int) -> str | None:
    seen: dict[str, tuple[int, str]] = {}
    for row, label in enumerate(labels, first_row):
        before, other = seen.setdefault(likeness(label), (row, label))
        if other != label:
            return (
                f"rows {before} and {row} have labels that differ only in case, quotes, invisible "
                "characters or the way a number is written"
            )
    return None


def _kinds(labels: Sequence[str]) -> str | None:
    kinds = {likeness(label) for label in labels}
    if kinds & {"true", "false"} and any(map(NUMBER.fullmatch, kinds)):
        return "some labels are numbers and others true or false; does 1 mean true?"
    return None
