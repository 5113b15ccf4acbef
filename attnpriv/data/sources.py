"""Where data comes from: a built-in source by its name, or a file by its path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnpriv.data.files import Column, read_file
from attnpriv.data.records import Dataset
from attnpriv.data.tables import SUFFIXES
from attnpriv.data.ticket_english import ENGLISH
from attnpriv.data.ticket_german import GERMAN
from attnpriv.data.ticket_grammar import Grammar
from attnpriv.data.tickets import make_tickets
from attnpriv.errors import InputError

SOURCES = {
    ENGLISH.name: "synthetic support messages in ten classes, with gold spans of personal data; "
    "options: rows=4000, seed=0, tie=0 (tie=1: the e-mail's domain alone tells the class)",
    GERMAN.name: "the same in German, with German and Austrian personal data; the same options",
}

_GRAMMARS: Mapping[str, Grammar] = {each.name: each for each in (ENGLISH, GERMAN)}

_TICKET_OPTIONS = {"rows": "[0-9]{1,9}", "seed": "[0-9]{1,9}", "tie": "[01]"}


def load_dataset(
    source: str,
    *,
    text_column: Column | None = None,
    label_column: Column | None = None,
    spans_column: Column | None = None,
    label_names: Sequence[str] | None = None,
    classes: int | None = None,
) -> Dataset:
    """Load a data set by name or from a file.

    Args:
        source: ``tickets`` or ``tickets-de``, also with options as in
            ``tickets:rows=500,seed=3,tie=1``, or the path of a .csv, .tsv, .jsonl or .parquet file.
        text_column: for files, see ``read_file``.
        label_column: for files, see ``read_file``.
        spans_column: for files, see ``read_file``.
        label_names: the classes of a trained model; labels are numbered by them.
        classes: for files, see ``read_file``.

    Raises:
        InputError: unknown source or option, columns given for a built-in source, a label that
            is none of ``label_names``, or whatever ``read_file`` refuses.

    >>> len(load_dataset("tickets:rows=50"))
    50
    """
    columns = {"text": text_column, "label": label_column, "spans": spans_column}
    name, _, options = source.partition(":")
    if name not in SOURCES:
        if Path(source).suffix.lower() not in SUFFIXES:
            raise InputError(
                f"expected the source {' or '.join(SOURCES)}, or a file ending in "
                f"{', '.join(SUFFIXES)}, got {source!r}"
            )
        return read_file(
            source,
            text_column=text_column,
            label_column=label_column,
            spans_column=spans_column,
            label_names=label_names,
            classes=classes,
        )
    given = [column for column, value in columns.items() if value is not None]
    if given:
        raise InputError(f"expected no {given[0]} column with {name}, which has its own columns")
    dataset = _make_tickets(_GRAMMARS[name], options)
    return dataset if label_names is None else _renumber(dataset, label_names)


def _make_tickets(grammar: Grammar, options: str) -> Dataset:
    given: dict[str, int] = {}
    for option in options.split(",") if options else []:
        key, _, value = option.partition("=")
        if key in given or not re.fullmatch(_TICKET_OPTIONS.get(key, "(?!)"), value):
            raise InputError(
                "expected options of tickets such as rows=500,seed=3,tie=1, each at most once, "
                f"got {option!r}"
            )
        given[key] = int(value)
    rows, seed, tie = given.get("rows", 4000), given.get("seed", 0), bool(given.get("tie"))
    return make_tickets(rows, seed, tie, grammar)


def _renumber(dataset: Dataset, label_names: Sequence[str]) -> Dataset:
    """Number the labels by another list of classes."""
    numbers = {name: number for number, name in enumerate(label_names)}
    unknown = sorted({dataset.label_names[label] for label in dataset.labels} - set(numbers))
    if unknown:
        raise InputError(f"expected labels among {', '.join(label_names)}, got {unknown[0]!r}")
    labels = tuple(numbers[dataset.label_names[label]] for label in dataset.labels)
    return dataset.relabelled(labels, label_names)
