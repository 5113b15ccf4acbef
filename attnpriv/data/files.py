"""Labelled texts from CSV, TSV, JSONL and Parquet files.

Columns are given by name (case does not matter) or by number from 0. The first row of a CSV or TSV
file is a header if it holds every name that was asked for or, where none was, if it holds ``text``
and ``label``; any other first row is a record. Columns that are not given are

* ``text``, ``label`` and, if there is one, ``spans``, where the columns have names;
* otherwise, in a file of just two columns, the labels are the one with fewer distinct values.

Errors name the file and the row (from 1, a header included), never what a record says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.data.records import Dataset
from attnpriv.data.tables import Table, read_table
from attnpriv.errors import InputError
from attnpriv.spans import Span, read_spans

MAX_TEXT_BYTES = 1_000_000
# Label names end up in the model card; these two keep a column of texts out of it.
MAX_CLASSES = 1000
MAX_LABEL_LENGTH = 100

Column = str | int


@dataclass(frozen=True)
class _Columns:
    """Where to find what, as positions in a row."""

    text: int
    label: int
    spans: int | None


@dataclass(frozen=True)
class _Record:
    text: str
    label: str
    spans: tuple[Span, ...]


def read_file(
    path: str | Path,
    *,
    text_column: Column | None = None,
    label_column: Column | None = None,
    spans_column: Column | None = None,
    label_names: Sequence[str] | None = None,
) -> Dataset:
    """Read a data set from a file; the suffix tells its format.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file in UTF-8. In TSV, quotes are literal.
        text_column: name or number of the column of texts; see the module for the defaults.
        label_column: the same for the labels, which may be strings or numbers.
        spans_column: the same for gold spans: a list of ``{"start", "end", "entity_type"}`` with
            positions in characters, written as JSON where a cell can hold text only.
        label_names: the classes of a trained model. Labels must be among them, and then one row
            or one class is enough. None takes the distinct labels, sorted.

    Returns:
        The records in the order of the file. What was inferred from their content, and is thus
        covered by no ε, is listed in ``data_dependent``.

    Raises:
        InputError: whatever is wrong with the file, a column, a row or the set of labels.
    """
    path = Path(path)
    table = read_table(path)
    try:
        table = _split_header(table, [text_column, label_column, spans_column])
        _check_size(table, minimum=2 if label_names is None else 1)
        inferred = table.names is None and text_column is None and label_column is None
        if inferred:
            text_column, label_column = infer_columns(table)
        columns = _find_columns(table, text_column, label_column, spans_column)
        records = [_read_row(row, columns, n) for n, row in enumerate(table.rows, table.first_row)]
        names = _distinct_labels(records) if label_names is None else tuple(label_names)
        labels = _label_numbers(records, names, table.first_row)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Dataset(
        name=path.stem,
        texts=tuple(record.text for record in records),
        labels=labels,
        label_names=names,
        spans=None if columns.spans is None else tuple(record.spans for record in records),
        data_dependent=(
            *(["which column holds the labels"] if inferred else []),
            *(["the names of the classes"] if label_names is None else []),
        ),
    )


def infer_columns(table: Table) -> tuple[int, int]:
    """Tell texts from labels in two nameless columns: labels have fewer distinct values.

    This looks at the records, so no ε covers it; ``read_file`` says so in ``data_dependent``.

    Returns:
        The positions of the texts and of the labels.

    Raises:
        InputError: there are not two columns, or both have as many distinct values.
    """
    width = len(table.rows[0])
    if width != 2:
        raise InputError(
            f"expected a header with text and label, or two columns, got {width} columns without "
            "one: say which columns hold the text and the label"
        )
    first, second = (len({row[i] for row in table.rows}) for i in (0, 1))
    if first == second:
        raise InputError(
            "cannot tell text from label, both columns have as many distinct values: "
            "say which columns hold the text and the label"
        )
    return (1, 0) if first < second else (0, 1)


def _split_header(table: Table, wanted: Sequence[Column | None]) -> Table:
    """Give a CSV or TSV table its names, if its first row is a header."""
    if table.names is not None:
        return table
    asked = [column for column in wanted if isinstance(column, str)]
    found = {_normal(cell) for cell in table.rows[0]}
    missing = [name for name in asked or ["text", "label"] if _normal(name) not in found]
    if asked and missing:
        raise InputError(f"expected a column named {missing[0]!r} in the first row")
    if missing:
        return table
    return replace(table, rows=table.rows[1:], names=table.rows[0], first_row=2)


def _check_size(table: Table, minimum: int) -> None:
    if len(table.rows) < minimum:
        raise InputError(f"expected at least {minimum} rows of data, got {len(table.rows)}")


def _find_columns(
    table: Table, text: Column | None, label: Column | None, spans: Column | None
) -> _Columns:
    """Turn names and numbers into positions, after putting in the default names."""
    names = [_normal(name) for name in table.names or []]
    if spans is None and names.count("spans") == 1:
        spans = "spans"
    columns = _Columns(
        text=_position("text" if text is None else text, names, len(table.rows[0])),
        label=_position("label" if label is None else label, names, len(table.rows[0])),
        spans=None if spans is None else _position(spans, names, len(table.rows[0])),
    )
    if columns.text == columns.label or columns.spans in (columns.text, columns.label):
        raise InputError("expected different columns for text, label and spans")
    return columns


def _position(column: Column, names: Sequence[str], width: int) -> int:
    if isinstance(column, int):
        if not 0 <= column < width:
            raise InputError(f"expected a column number from 0 to {width - 1}, got {column}")
        return column
    if names.count(_normal(column)) != 1:
        count = names.count(_normal(column))
        raise InputError(f"expected one column named {column!r}, got {count}: say which it is")
    return names.index(_normal(column))


def _normal(name: str) -> str:
    return name.strip().lower()


def _read_row(row: Sequence[Any], columns: _Columns, number: int) -> _Record:
    try:
        text = _read_text(row[columns.text])
        label = _read_label(row[columns.label])
        spans = () if columns.spans is None else read_spans(row[columns.spans], len(text))
    except InputError as error:
        raise InputError(f"row {number}: {error}") from None
    return _Record(text, label, spans)


def _read_text(cell: object) -> str:
    if not isinstance(cell, str):
        raise InputError(f"expected a text, got {type(cell).__name__}")
    if not cell.strip():
        raise InputError("the text is empty")
    size = _size(cell)
    if size > MAX_TEXT_BYTES:
        raise InputError(f"expected a text of at most {MAX_TEXT_BYTES} bytes, got {size}")
    return cell


def _read_label(cell: object) -> str:
    if not isinstance(cell, str | int | float | None):
        raise InputError(
            f"expected a label that is a string or a number, got {type(cell).__name__}"
        )
    label = "" if cell is None else str(cell)
    if not label.strip():
        raise InputError("the label is missing")
    if _size(label) > MAX_LABEL_LENGTH:
        raise InputError(f"the label has over {MAX_LABEL_LENGTH} bytes; is this the text?")
    return label


def _size(text: str) -> int:
    """Bytes in UTF-8."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InputError(f"lone surrogate at character {error.start}") from None


def _distinct_labels(records: Sequence[_Record]) -> tuple[str, ...]:
    names = tuple(sorted({record.label for record in records}))
    if not 2 <= len(names) <= MAX_CLASSES:
        raise InputError(f"expected 2 to {MAX_CLASSES} classes, got {len(names)}")
    return names


def _label_numbers(
    records: Sequence[_Record], names: Sequence[str], first_row: int
) -> tuple[int, ...]:
    numbers = {name: number for number, name in enumerate(names)}
    for row, record in enumerate(records, first_row):
        if record.label not in numbers:
            raise InputError(f"row {row}: the label is none of {', '.join(names)}")
    return tuple(numbers[record.label] for record in records)
