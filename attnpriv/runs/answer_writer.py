"""Files of answers: a label and probabilities for each row, as CSV, JSONL or Parquet."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from attnpriv.errors import InputError

Answers = NDArray[np.float32]
"""Class probabilities, [N, K]; NaN where there is no text that the model can read."""
Write = Callable[[Sequence[Any], Answers], None]
"""Writes some rows: their identifiers, and their answers."""
Record = tuple[int, Any, str | None, list[float | None]]
"""A row's number, identifier, label and probabilities."""
Put = Callable[[Sequence[Record]], None]
DIGITS = 6


def check_writable(out: Path, id_column: str | None) -> None:
    """Raise InputError where no file of answers can be made."""
    if out.suffix.lower() not in _WRITERS:
        raise InputError(f"expected --out to end in {', '.join(_WRITERS)}, got {str(out)!r}")
    if id_column in ("row", "label"):
        raise InputError(f"expected an --id-column other than row and label, got {id_column!r}")
    if out.is_dir() or not out.parent.is_dir():
        raise InputError(f"expected --out to name a file in a folder that is there, got {out}")


@contextmanager
def writing(out: Path, labels: Sequence[str], id_column: str | None) -> Iterator[Write]:
    """Write a file, which is there once the block ends without an error, and all of it.

    Its columns are ``row`` (from 1), the identifier's, ``label``, and ``probability_LABEL`` for
    each label; in JSONL ``probabilities`` holds them by label.

    Raises:
        InputError: it cannot be written.
    """
    staging = out.with_name(f".{out.name}.new")
    try:
        with _WRITERS[out.suffix.lower()](staging, labels, id_column) as put:
            numbers = count(1)
            yield lambda ids, answers: put([*_records(numbers, labels, ids, answers)])
        with staging.open("rb") as file:
            os.fsync(file.fileno())
        staging.replace(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from error
    finally:
        staging.unlink(missing_ok=True)


def _names(labels: Sequence[str], id_column: str | None) -> list[str]:
    own = [] if id_column is None else [id_column]
    return ["row", *own, "label", *(f"probability_{label}" for label in labels)]


def _records(
    numbers: Iterable[int], labels: Sequence[str], ids: Sequence[Any], answers: Answers
) -> Iterator[Record]:
    for own, values, row in zip(ids, answers, numbers, strict=False):
        if np.isnan(values[0]):
            yield row, own, None, [None] * len(labels)
        else:
            rounded = [round(float(value), DIGITS) for value in values]
            yield row, own, labels[int(values.argmax())], [*rounded]


@contextmanager
def _csv(path: Path, labels: Sequence[str], id_column: str | None) -> Iterator[Put]:
    with _private(path, newline="") as file:
        rows = csv.writer(file)
        rows.writerow(_names(labels, id_column))

        def put(records: Sequence[Record]) -> None:
            for row, own, label, values in records:
                rows.writerow([row, *([] if id_column is None else [own]), label, *values])

        yield put


@contextmanager
def _jsonl(path: Path, labels: Sequence[str], id_column: str | None) -> Iterator[Put]:
    with _private(path) as file:

        def put(records: Sequence[Record]) -> None:
            for row, own, label, values in records:
                said = None if label is None else dict(zip(labels, values, strict=True))
                named = {} if id_column is None else {id_column: own}
                record = {"row": row, **named, "label": label, "probabilities": said}
                file.write(json.dumps(record, ensure_ascii=False) + "\n")

        yield put


@contextmanager
def _parquet(path: Path, labels: Sequence[str], id_column: str | None) -> Iterator[Put]:
    names = _names(labels, id_column)
    texts = [(name, pyarrow.string()) for name in names[1 : -len(labels)]]
    shares = [(name, pyarrow.float32()) for name in names[-len(labels) :]]
    schema = pyarrow.schema([("row", pyarrow.int64()), *texts, *shares])
    _private(path).close()
    with pyarrow.parquet.ParquetWriter(path, schema) as file:

        def put(records: Sequence[Record]) -> None:
            rows = (
                (row, *([] if id_column is None else [_text(own)]), label, *values)
                for row, own, label, values in records
            )
            columns = [dict(zip(names, row, strict=True)) for row in rows]
            file.write_table(pyarrow.Table.from_pylist(columns, schema=schema))

        yield put


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, default=str)


def _private(path: Path, newline: str | None = None) -> IO[str]:
    """A new file that its owner alone reads: answers tell what texts say."""
    path.unlink(missing_ok=True)

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    return open(path, "x", encoding="utf-8", newline=newline, opener=opener)  # the caller closes it


_WRITERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
