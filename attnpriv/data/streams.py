"""Texts of a file of any size, row by row, without labels."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from attnpriv.data.tables import long_fields
from attnpriv.errors import InputError

TEXT = "text"
PARQUET_ROWS = 1024  # that are read at a time
Row = tuple[Any, Any]
"""A row's cell of text and its identifier, as the file has them; None where there is none."""


def stream_rows(
    path: Path, text_column: str | None = None, id_column: str | None = None
) -> Iterator[Row]:
    """Read the texts of a CSV, TSV, JSONL or Parquet file, or of one with a text a line (``.txt``).

    A CSV or TSV file has a header, unless it has one column and its first row does not hold the
    name of the text's column. Empty lines are no rows where there are several columns, nor in
    JSONL. No more than a few rows are in memory at a time.

    Args:
        path: the file; its suffix says its format.
        text_column: name of the column of texts. By default ``text``, or the only one.
        id_column: name of a column that is passed on.

    Raises:
        InputError: the suffix is unknown, there is no such column, or the file cannot be read. The
            message names the row, never the content.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"expected a file ending in {', '.join(_READERS)}, got {str(path)!r}")
    try:
        yield from read(path, text_column, id_column)
    except (UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise InputError(f"{path} cannot be read: {type(error).__name__}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None


def count_rows(path: Path) -> int:
    """How many rows a file has, roughly: its lines, or what Parquet says."""
    try:
        if path.suffix.lower() == ".parquet":
            return int(pyarrow.parquet.read_metadata(path).num_rows)
        with path.open("rb") as file:
            return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _lines(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Row]:
    if text_column or id_column:
        raise InputError(f"{path} has a text in each line and no columns")
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            yield line.rstrip("\r\n"), None


def _csv(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from _table(_of_any_size(csv.reader(file, strict=True)), path, text_column, id_column)


def _of_any_size(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    while True:
        with long_fields():
            row = next(rows, None)
        if row is None:
            return
        yield row


def _tsv(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Row]:
    """Quotes are read literally, as everywhere here."""
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        rows = (line.rstrip("\r\n").split("\t") for line in file)
        yield from _table(rows, path, text_column, id_column)


def _table(
    rows: Iterator[list[str]], path: Path, text_column: str | None, id_column: str | None
) -> Iterator[Row]:
    first = next(rows, None)
    if first is None:
        return
    if len(first) == 1 and id_column is None and first[0] != (text_column or TEXT):
        if text_column is not None:
            raise InputError(f"{path}: expected a column named {text_column!r} in its header")
        yield first[0], None
        yield from ((row[0] if row else "", None) for row in rows)
        return
    text, own_id = _positions(first, path, text_column, id_column)
    for number, row in enumerate(rows, 2):
        if not any(row):
            continue  # an empty line
        if len(row) != len(first):
            raise InputError(f"{path}, row {number}: expected {len(first)} cells, got {len(row)}")
        yield row[text], None if own_id is None else row[own_id]


def _jsonl(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError):
                found = None
            if not isinstance(found, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object")
            yield (
                found.get(text_column or TEXT),
                None if id_column is None else found.get(id_column),
            )


def _parquet(path: Path, text_column: str | None, id_column: str | None) -> Iterator[Row]:
    file = pyarrow.parquet.ParquetFile(path)
    names = file.schema_arrow.names
    text, own_id = _positions(names, path, text_column, id_column)
    wanted = [names[at] for at in (text, own_id) if at is not None]
    for batch in file.iter_batches(PARQUET_ROWS, columns=[*dict.fromkeys(wanted)]):
        texts, ids = batch.column(wanted[0]).to_pylist(), batch.column(wanted[-1]).to_pylist()
        yield from zip(texts, [None] * len(texts) if own_id is None else ids, strict=True)


def _positions(
    names: Sequence[str], path: Path, text_column: str | None, id_column: str | None
) -> tuple[int, int | None]:
    if text_column is None and TEXT not in names and len(names) == 1:
        text_column = names[0]
    text = _position(names, path, text_column or TEXT, "--text-column")
    return text, None if id_column is None else _position(names, path, id_column, "--id-column")


def _position(names: Sequence[str], path: Path, name: str, option: str) -> int:
    if names.count(name) != 1:
        raise InputError(
            f"{path}: expected one column named {name!r}, got {names.count(name)}: name it with "
            f"{option}"
        )
    return names.index(name)


_READERS: dict[str, Callable[[Path, str | None, str | None], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": _lines,
}
