"""Labelled texts from CSV, TSV, JSONL and Parquet files.

Columns are given by name (case does not matter) or by number from 0. A string of digits is taken as
a name if a column has that name, else as a number. The first row of a CSV or TSV file is a header
if it holds every name that was asked for. If no name was asked for, it is a header if it holds
``text`` and ``label``, or one of the two while the other column is given by its number or is the
only other one. Any other first row is a record. Columns that are not given are found as follows:

* With names: the columns ``text``, ``label`` and, if there is one, ``spans``. If one of just two
  columns is called ``text`` or ``label``, the second one is the other.
* Without names, in a file of two columns: the labels are the column that holds nothing but classes
  of the trained model or, before training, the column with fewer distinct values.

Only the columns that are used are read from Parquet. ``attnpriv.data.labels`` says how labels are
named and which of them are refused. Errors name the file and the row (counted from 1, with the
header), never what a record says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from attnpriv.data.labels import choose_classes, number_labels
from attnpriv.data.records import Texts
from attnpriv.data.tables import Table, read_table
from attnpriv.errors import InputError
from attnpriv.labels import label_name, utf8_size
from attnpriv.spans import read_spans
from attnpriv.visible import has_visible

MAX_TEXT_BYTES = 1_000_000

_NAME_IT = "name the columns with --text-column and --label-column"
Column = str | int
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Columns:
    """Where to find what, as positions in a row."""

    text: int
    label: int
    spans: int | None


def read_file(
    path: str | Path,
    *,
    text_column: Column | None = None,
    label_column: Column | None = None,
    spans_column: Column | None = None,
    label_names: Sequence[str] | None = None,
    classes: int | None = None,
) -> Texts:
    """Read a data set from a file whose suffix tells its format.

    Args:
        path: a .csv, .tsv, .jsonl or .parquet file in UTF-8. In TSV, quotes are literal.
        text_column: name or number of the column of texts; the module says what is the default.
        label_column: the same for the labels, which may be strings or numbers.
        spans_column: the same for gold spans: a list of ``{"start", "end", "entity_type"}`` with
            positions in characters, written as JSON if a cell can hold text only.
        label_names: the classes of a trained model. Labels must be among them, and then one row
            or one class is enough. None takes the distinct labels, sorted.
        classes: the number of classes, which confirms names that do not look like classes; not
            used with ``label_names``.

    Returns:
        The records in the order of the file. Their ``data_dependent`` lists what was inferred from
        their content, which no ε covers.

    Raises:
        InputError: whatever is wrong with the file, a column, a row or the set of labels.

    Not covered: private texts that are as short as labels pass for classes if most rows share
    theirs with others and, where classes have ten rows on average, none is in a single row.
    """
    path = Path(path)
    table = read_table(path)
    try:
        table = _split_header(table, text_column, label_column, spans_column)
        _check_size(table, minimum=2 if label_names is None else 1)
        inferred = table.names is None and text_column is None and label_column is None
        if inferred:
            text_column, label_column = infer_columns(table, label_names)
        columns = _find_columns(table, text_column, label_column, spans_column)
        texts = _each(table, _read_text, table.columns[columns.text])
        labels = _each(table, label_name, table.columns[columns.label])
        spans = None
        if columns.spans is not None:
            spans = tuple(_each(table, read_spans, table.columns[columns.spans], map(len, texts)))
        header = table.names is not None
        names = tuple(label_names or ()) or choose_classes(
            labels, texts, first_row=table.first_row, has_header=header, confirmed=classes
        )
        numbers = number_labels(labels, names, table.first_row, header)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return Texts(
        name=path.stem,
        texts=tuple(texts),
        labels=numbers,
        label_names=names,
        spans=spans,
        data_dependent=(
            *(["which column holds the labels"] if inferred else []),
            *(["the names of the classes"] if label_names is None else []),
        ),
    )


def infer_columns(table: Table, label_names: Sequence[str] | None = None) -> tuple[int, int]:
    """Tell texts from labels in two nameless columns.

    If the classes are known, the labels are the column that holds nothing but their names, else the
    column with fewer distinct values. This looks at the records, so no ε covers it; ``read_file``
    says so in ``data_dependent``.

    Returns:
        The positions of the texts and of the labels.

    Raises:
        InputError: there are not two columns, or nothing tells them apart.
    """
    width = len(table.columns)
    if width != 2:
        raise InputError(
            f"expected a header with text and label, or two columns, got {width} columns without "
            f"a header: {_NAME_IT}"
        )
    distinct = [set(column) for column in table.columns]
    first, second = (values <= set(label_names or ()) for values in distinct)
    if first == second:
        # Both or neither hold nothing but classes, so the number of values decides.
        first, second = len(distinct[0]) < len(distinct[1]), len(distinct[0]) > len(distinct[1])
    if first == second:
        raise InputError(
            "cannot tell text from label, both columns have as many distinct values: " + _NAME_IT
        )
    return (1, 0) if first else (0, 1)


def _split_header(
    table: Table, text: Column | None, label: Column | None, spans: Column | None
) -> Table:
    """Name the columns of a CSV or TSV table if its first row is a header."""
    if table.names is not None:
        return table
    cells = {_normal(column[0]) for column in table.columns}
    strings = [column for column in (text, label, spans) if isinstance(column, str)]
    names = [name for name in strings if not name.isdecimal()]
    missing = [name for name in names if _normal(name) not in cells]
    if missing:
        raise InputError(f"there is no column named {missing[0]!r} in the first row")
    is_header = (
        names
        or (strings and cells.issuperset(strings))
        or cells >= {"text", "label"}
        or _holds_default(table, cells, text, label)
    )
    return table.with_header() if is_header else table


def _holds_default(
    table: Table, cells: set[str], text: Column | None, label: Column | None
) -> bool:
    """Whether the first row names the one of text and label that is still to be found."""
    open_names = {name for name, given in (("text", text), ("label", label)) if given is None}
    if len(open_names) == 1:
        return open_names <= cells
    named = [column for column in table.columns if _normal(column[0]) in ("text", "label")]
    # A value that occurs again is a label or a text, whatever it says.
    return len(open_names) == len(table.columns) == 2 and any(
        column[0] not in column[1:] for column in named
    )


def _check_size(table: Table, minimum: int) -> None:
    if table.rows < minimum:
        raise InputError(f"expected at least {minimum} rows of data, got {table.rows}")


def _find_columns(
    table: Table, text: Column | None, label: Column | None, spans: Column | None
) -> _Columns:
    """Turn names and numbers into positions, with the default names where none are given."""
    names, width = [_normal(name) for name in table.names or []], len(table.columns)
    if spans is None and names.count("spans") == 1:
        spans = "spans"
    if text is None and label is None and width == 2:
        text, label = _the_other_one(names)
    columns = _Columns(
        text=_position("text" if text is None else text, names, width),
        label=_position("label" if label is None else label, names, width),
        spans=None if spans is None else _position(spans, names, width),
    )
    if columns.text == columns.label or columns.spans in (columns.text, columns.label):
        raise InputError("expected different columns for text, label and spans, got one twice")
    return columns


def _the_other_one(names: Sequence[str]) -> tuple[int | None, int | None]:
    """The positions of text and label if one of two columns has such a name, else None."""
    if "text" in names and "label" not in names:
        return names.index("text"), 1 - names.index("text")
    if "label" in names and "text" not in names:
        return 1 - names.index("label"), names.index("label")
    return None, None


def _position(column: Column, names: Sequence[str], width: int) -> int:
    if isinstance(column, str) and column.isdecimal() and _normal(column) not in names:
        column = int(column)
    if isinstance(column, int):
        if not 0 <= column < width:
            raise InputError(f"expected a column number from 0 to {width - 1}, got {column}")
        return column
    count = names.count(_normal(column))
    if count != 1:
        raise InputError(f"expected one column named {column!r}, got {count}: {_NAME_IT}")
    return names.index(_normal(column))


def _normal(name: str) -> str:
    """A column's name in lower case, without the quotes that TSV takes literally."""
    return name.strip().strip('"').strip().lower()


def _each(
    table: Table, read: Callable[..., Value], cells: Iterable[Any], *others: Iterable[Any]
) -> list[Value]:
    """Apply a function to each cell of a column, with other values of the same row."""
    values = []
    for number, arguments in enumerate(zip(cells, *others, strict=True), table.first_row):
        try:
            values.append(read(*arguments))
        except InputError as error:
            raise InputError(f"row {number}: {error}") from None
    return values


def _read_text(cell: object) -> str:
    if not isinstance(cell, str):
        raise InputError(f"expected a text, got {type(cell).__name__}")
    if not has_visible(cell):
        raise InputError("the text is empty or has no visible character")
    size = utf8_size(cell)
    if size > MAX_TEXT_BYTES:
        raise InputError(f"expected a text of at most {MAX_TEXT_BYTES} bytes, got {size}")
    return cell
