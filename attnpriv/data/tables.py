"""Files as plain tables: bytes in, columns of cells out, without any meaning."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow
import pyarrow.parquet

from attnpriv.errors import InputError

_CSV_LIMIT_LOCK = threading.Lock()


@dataclass(frozen=True)
class Table:
    """Columns of cells.

    Attributes:
        columns: all of the same length. Those of Parquet are read from the file when they are used.
        rows: the number of cells in each column.
        names: the names of the columns, if the format has them; for JSONL, in the order in which
            they first appear. In CSV and TSV a header is still the first row.
        first_row: the number that errors give to the first row.
    """

    columns: Sequence[Sequence[Any]]
    rows: int
    names: list[str] | None = None
    first_row: int = 1

    def with_header(self) -> Table:
        """The same table with its first row taken as the names of the columns."""
        return Table(
            columns=[column[1:] for column in self.columns],
            rows=self.rows - 1,
            names=[column[0] for column in self.columns],
            first_row=self.first_row + 1,
        )


def read_table(path: Path) -> Table:
    """Read a CSV, TSV, JSONL or Parquet file, as its suffix says.

    Rows are numbered from 1, a header included; in TSV and JSONL that is the line number. The table
    has at least one row. Empty lines before the first row and after the last one are skipped.

    Raises:
        InputError: the suffix is unknown, or the file is not a readable, regular file, not UTF-8,
            malformed, ragged or empty. The message names the row or the byte, never the content. A
            column of Parquet that cannot be read raises it only when it is used.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"expected a file ending in {', '.join(SUFFIXES)}, got {str(path)!r}")
    with _opened(path) as file:
        table = parse(file, path)
    if not table.rows:
        raise InputError(f"{path}: expected at least one row, got none")
    return table


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"expected a regular file at {path}")
        with path.open("rb") as file:
            yield file
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # a NUL byte in the path
        raise InputError(f"cannot read {str(path)!r}: {error}") from error


def _from_rows(rows: Sequence[Sequence[Any]], path: Path) -> Table:
    """A table of rows, all of the same width, without the empty lines at both ends."""
    filled = [number for number, row in enumerate(rows) if list(row) not in ([], [""])]
    if not filled:
        return Table([], 0)
    first, end = filled[0], filled[-1] + 1
    kept = rows[first:end]
    for number, row in enumerate(kept, first + 1):
        if len(row) != len(kept[0]):
            raise InputError(
                f"{path}: row {number} has {len(row)} columns, expected {len(kept[0])}"
            )
    return Table(list(zip(*kept, strict=True)), len(kept), first_row=first + 1)


def _decode(data: bytes, path: Path) -> str:
    """UTF-8 text without its byte order mark."""
    try:
        return data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: invalid UTF-8 at byte {error.start} (line {line})") from None


def _lines(file: IO[bytes], path: Path) -> list[str]:
    """The lines; only LF and CRLF end one."""
    return [line.removesuffix("\r") for line in _decode(file.read(), path).split("\n")]


def _parse_csv(file: IO[bytes], path: Path) -> Table:
    rows: list[list[str]] = []
    with long_fields():
        try:
            # newline="" keeps line ends inside quotes as they are.
            text = io.StringIO(_decode(file.read(), path), newline="")
            rows.extend(csv.reader(text, strict=True))
        except csv.Error as error:
            raise InputError(f"{path}: row {len(rows) + 1} is malformed CSV: {error}") from error
    return _from_rows(rows, path)


@contextmanager
def long_fields() -> Iterator[None]:
    """Lift the csv module's global limit of 131,072 characters per field for a while."""
    with _CSV_LIMIT_LOCK:
        before = csv.field_size_limit(2**31 - 1)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _parse_tsv(file: IO[bytes], path: Path) -> Table:
    return _from_rows([line.split("\t") for line in _lines(file, path)], path)


def _parse_jsonl(file: IO[bytes], path: Path) -> Table:
    lines = [(number, line) for number, line in enumerate(_lines(file, path), 1)]
    filled = [place for place, (_, line) in enumerate(lines) if line]
    lines = lines[filled[0] : filled[-1] + 1] if filled else []
    records = [_parse_object(line, f"{path}: row {number}") for number, line in lines]
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = [[record.get(name) for record in records] for name in names]
    return Table(columns, len(records), names, first_row=lines[0][0] if lines else 1)


def _parse_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise InputError(f"{where} is not a JSON object")
    return record


def _parse_parquet(file: IO[bytes], path: Path) -> Table:
    with _readable_parquet(f"{path}: "):
        parquet = pyarrow.parquet.ParquetFile(file)
        names, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
    return Table(_ParquetColumns(path, names, rows), rows, names)


class _ParquetColumns(Sequence[Sequence[Any]]):
    """The columns of a Parquet file, each read only when it is used, since most never are."""

    def __init__(self, path: Path, names: Sequence[str], rows: int) -> None:
        self._path, self._names, self._rows = path, names, rows

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, at: Any) -> Any:
        name = self._names[at]
        with _opened(self._path) as file, _readable_parquet():
            column = pyarrow.parquet.ParquetFile(file).read(columns=[name]).column(name)
            column.validate(full=True)
            cells = column.to_pylist()
            if len(cells) != self._rows:
                raise ValueError("a column of another length")
        return cells


@contextmanager
def _readable_parquet(where: str = "") -> Iterator[None]:
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise InputError(f"{where}expected a readable Parquet file with UTF-8 text") from error


_PARSERS: dict[str, Callable[[IO[bytes], Path], Table]] = {
    ".csv": _parse_csv,
    ".tsv": _parse_tsv,
    ".jsonl": _parse_jsonl,
    ".parquet": _parse_parquet,
}
SUFFIXES = tuple(_PARSERS)
