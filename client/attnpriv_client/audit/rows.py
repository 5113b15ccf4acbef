"""The audited texts from JSONL, CSV or TSV, with what is known of each.

Columns go by their names, whatever the case: ``text``; and where there are any, ``label``,
``spans`` (a list of ``{"start", "end", "entity_type"}`` in characters, as JSON where a cell can
hold text only) and ``member`` (true or false: the model was trained on this row). In TSV, quotes
are literal. Errors name the file and the row (from 1, a header included), never what a record says.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.spans import Span as Span
from attnpriv.spans import read_spans
from attnpriv.visible import has_visible

COLUMNS = ("text", "label", "spans", "member")
_MEMBER = {"true": True, "1": True, "false": False, "0": False, "": None}

Record = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One text and what the file says of it; None where it says nothing.

    Attributes:
        number: of its row in the file.
        text: to be asked about.
        label: the true class.
        spans: its personal data; empty where it has none.
        member: the model was trained on it.
    """

    number: int
    text: str
    label: str | None = None
    spans: tuple[Span, ...] | None = None
    member: bool | None = None


def read_rows(path: Path) -> list[Row]:
    """All rows of a file; its suffix tells the format.

    Raises:
        InputError: whatever is wrong with the file, a column or a row.
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


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8, byte {error.start} is not") from None


def _jsonl(content: str) -> Iterator[tuple[int, Record]]:
    for number, line in enumerate(content.rstrip("\r\n").split("\n") if content else (), start=1):
        record = _json(line, f"row {number}: expected a JSON object")
        if not isinstance(record, dict):
            raise InputError(f"row {number}: expected a JSON object")
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
    """The cells of the columns that are read, by name; absent ones are None."""
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
    if not isinstance(cell, str) or not has_visible(cell):
        raise InputError("expected a text with a visible character")
    return cell


def _label(cell: object) -> str | None:
    if isinstance(cell, bool) or not isinstance(cell, str | int | float | None):
        raise InputError("expected a label that is a string or a number")
    return None if cell is None or not str(cell).strip() else str(cell)


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


def _json(text: str, message: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(message) from None
