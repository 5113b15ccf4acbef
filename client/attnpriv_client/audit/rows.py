"""The texts to audit, from JSONL, CSV or TSV, with what is known about each.

Columns are found by name, whatever the case: ``text`` and, if there are any, ``label``, ``spans``
(a list of ``{"start", "end", "entity_type"}`` in characters, as JSON if a cell can hold text only)
and ``member`` (true or false: whether the model was trained on this row). In TSV, quotes are
literal. Labels are read as ``attnpriv audit`` reads them. Errors name the file and the row (counted
from 1, with the header), never what a record says.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.labels import class_finder, label_name, not_a_class
from attnpriv.spans import Span as Span
from attnpriv.spans import read_spans
from attnpriv.visible import has_visible

COLUMNS = ("text", "label", "spans", "member")
_MEMBER = {"true": True, "1": True, "false": False, "0": False, "": None}

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One text and what the file says about it; None where it says nothing.

    Attributes:
        number: the number of the row in the file.
        text: the text to ask about.
        label: the true class.
        spans: the personal data in the text; empty if it has none.
        member: whether the model was trained on the text.
    """

    number: int
    text: str
    label: str | None = None
    spans: tuple[Span, ...] | None = None
    member: bool | None = None


def read_rows(path: Path) -> list[Row]:
    """All rows of a file whose suffix tells its format.

    Raises:
        InputError: something is wrong with the file, a column or a row.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"expected a file ending in {', '.join(_PARSERS)}, got {str(path)!r}")
    try:
        rows = [_read(number, record) for number, record in parse(_content(path))]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if not rows:
        raise InputError(f"{path}: expected at least one row, got none")
    return rows


def with_classes(rows: Sequence[Row], names: Sequence[str]) -> list[Row]:
    """The rows with their labels as the model names its classes; see ``class_finder``.

    Raises:
        InputError: a label means none of the classes.
    """
    find = class_finder(names)

    def of_class(row: Row) -> Row:
        if row.label is None:
            return row
        number = find(row.label)
        if number is None:
            raise not_a_class(row.number, names)
        return replace(row, label=names[number])

    return [of_class(row) for row in rows]


def _content(path: Path) -> str:
    data = b""
    try:
        data = path.read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"invalid UTF-8 at byte {error.start} (line {line})") from None


def _jsonl(content: str) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(content.rstrip("\r\n").split("\n") if content else (), start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise InputError(f"row {number} is not a JSON object")
        yield number, _known(list(record), list(record.values()), number)


def _csv(content: str) -> Iterator[tuple[int, Record]]:
    table: list[list[str]] = []
    try:
        # newline="" keeps line ends inside quotes as they are.
        table.extend(csv.reader(io.StringIO(content, newline=""), strict=True))
    except csv.Error as error:
        raise InputError(f"row {len(table) + 1} is malformed CSV: {error}") from error
    yield from _with_header(table)


def _tsv(content: str) -> Iterator[tuple[int, Record]]:
    lines = content.rstrip("\r\n").split("\n") if content else []
    yield from _with_header([line.removesuffix("\r").split("\t") for line in lines])


_PARSERS = {".jsonl": _jsonl, ".csv": _csv, ".tsv": _tsv}


def _with_header(table: Sequence[Sequence[str]]) -> Iterator[tuple[int, Record]]:
    for number, cells in enumerate(table[1:], start=2):
        if len(cells) != len(table[0]):
            raise InputError(f"row {number} has {len(cells)} columns, expected {len(table[0])}")
        yield number, _known(table[0], cells, number)


def _known(names: Sequence[str], cells: Sequence[Any], number: int) -> Record:
    """The cells of the columns that are used, by name; None for absent columns."""
    normal = [name.strip().lower() for name in names]
    for name in COLUMNS:
        if normal.count(name) > 1 or (name == "text" and name not in normal):
            raise InputError(
                f"row {number}: expected one column named {name}, got {normal.count(name)}"
            )
    found = dict(zip(normal, cells, strict=True))
    return {name: found.get(name) for name in COLUMNS}


def _read(number: int, record: Record) -> Row:
    try:
        text = _text(record["text"])
        return Row(
            number,
            text,
            _label(record["label"]),
            _spans(record["spans"], len(text)),
            _member(record["member"]),
        )
    except InputError as error:
        raise InputError(f"row {number}: {error}") from None


def _text(cell: object) -> str:
    if not isinstance(cell, str):
        raise InputError(f"expected a text, got {type(cell).__name__}")
    if not has_visible(cell):
        raise InputError("the text is empty or has no visible character")
    return cell


def _label(cell: object) -> str | None:
    is_missing = cell is None or (isinstance(cell, str) and not cell.strip())
    return None if is_missing else label_name(cell)


def _member(cell: object) -> bool | None:
    if cell is None or isinstance(cell, bool):
        return cell
    value = cell.strip().lower() if isinstance(cell, str) else None
    if value not in _MEMBER:
        raise InputError("expected member to be true or false")
    return _MEMBER[value]


def _spans(cell: object, length: int) -> tuple[Span, ...] | None:
    if cell is None or (isinstance(cell, str) and cell.strip() in ("", "null")):
        return None
    return read_spans(cell, length)
