"""Files as plain tables: bytes in, rows of cells out, before anything is made of them."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from attnpriv.errors import InputError

_CSV_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        rows: all have the same number of cells.
        names: the columns' names where the format has them, for JSONL in the order in which they
            first appear. In CSV and TSV a header is still the first of the rows.
        first_row: the number of the first row, as errors should give it.
    """

    rows: list[list[Any]]
    names: list[str] | None = None
    first_row: int = 1


def read_table(path: Path) -> Table:
    """Read a CSV, TSV, JSONL or Parquet file; the suffix tells which.

    Rows are numbered from 1, a header included; in TSV and JSONL that is the line. There is at
    least one.

    Raises:
        InputError: unknown suffix; no readable, regular file; not UTF-8; malformed; ragged; empty.
            The message names the row or the byte, never the content.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"expected a file ending in {', '.join(SUFFIXES)}, got {str(path)!r}")
    table = parse(_read_bytes(path), str(path))
    if not table.rows:
        raise InputError(f"{path}: expected at least one row, got none")
    for number, row in enumerate(table.rows, table.first_row):
        if len(row) != len(table.rows[0]):
            raise InputError(
                f"{path}: row {number} has {len(row)} columns, expected {len(table.rows[0])}"
            )
    return table


def _read_bytes(path: Path) -> bytes:
    try:
        if path.is_file() or not path.exists():
            return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in the path
        raise InputError(f"cannot read {str(path)!r}: {error}") from error
    raise InputError(f"expected a regular file at {path}")


def _decode(data: bytes, path: str) -> str:
    """UTF-8 text without its byte order mark."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: invalid UTF-8 at byte {error.start} (line {line})") from None


def _lines(data: bytes, path: str) -> list[str]:
    """The lines, ended by LF or CRLF alone; empty ones at the end are dropped."""
    lines = [line.removesuffix("\r") for line in _decode(data, path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _parse_csv(data: bytes, path: str) -> Table:
    rows: list[list[str]] = []
    with _long_fields():
        try:
            # newline="" keeps line ends inside quotes as they are.
            rows.extend(csv.reader(io.StringIO(_decode(data, path), newline=""), strict=True))
        except csv.Error as error:
            raise InputError(f"{path}: row {len(rows) + 1} is malformed CSV: {error}") from error
    while rows and not rows[-1]:
        rows.pop()
    return Table(rows)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a field, which is global, for a while."""
    with _CSV_LIMIT_LOCK:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _parse_tsv(data: bytes, path: str) -> Table:
    return Table([line.split("\t") for line in _lines(data, path)])


def _parse_jsonl(data: bytes, path: str) -> Table:
    lines = enumerate(_lines(data, path), 1)
    records = [_parse_object(line, f"{path}: row {number}") for number, line in lines]
    names = list(dict.fromkeys(name for record in records for name in record))
    return Table([[record.get(name) for name in names] for record in records], names)


def _parse_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{where} is not a JSON object")
    return record


def _parse_parquet(data: bytes, path: str) -> Table:
    try:
        table = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(data)).read()
        table.validate(full=True)
        columns = [column.to_pylist() for column in table.columns]
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: expected a readable Parquet file with UTF-8 text") from error
    return Table([list(row) for row in zip(*columns, strict=True)], table.column_names)


_PARSERS: dict[str, Callable[[bytes, str], Table]] = {
    ".csv": _parse_csv,
    ".tsv": _parse_tsv,
    ".jsonl": _parse_jsonl,
    ".parquet": _parse_parquet,
}
SUFFIXES = tuple(_PARSERS)
