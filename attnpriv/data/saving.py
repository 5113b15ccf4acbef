"""Writing data sets to files, which ``read_file`` reads without further options.

Not covered: names of classes that ``attnpriv.labels`` would change or ``attnpriv.data.labels``
refuse.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from attnpriv.data.records import Dataset, Texts
from attnpriv.errors import InputError
from attnpriv.replacing import replace_file, replaceable


def save_dataset(dataset: Dataset, path: str | Path, *, overwrite: bool = False) -> None:
    """Write a data set with the columns text, label and, if it has any, spans.

    The file appears complete or not at all, and only its owner may read it.

    Args:
        dataset: what to write.
        path: the file to write; .csv, .tsv, .jsonl or .parquet tells the format.
        overwrite: whether an existing file may be replaced.

    Raises:
        InputError: the records are no texts, unknown suffix, the file exists, the folder cannot be
            written to, or a record does not fit into TSV, which allows no tabs and line ends inside
            a cell.
    """
    if not isinstance(dataset, Texts):
        raise InputError(f"expected texts to write, got {dataset.name}, which holds other records")
    path = Path(path)
    render = _RENDERERS.get(path.suffix.lower())
    if render is None:
        raise InputError(f"expected a file ending in {', '.join(_RENDERERS)}, got {str(path)!r}")
    try:
        target = replaceable(path)
        if target is not None and target.exists() and not overwrite:
            raise InputError(f"{path} exists already: choose another file, or give --overwrite")
        replace_file(path, render(_rows(dataset)), 0o600)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _rows(dataset: Texts) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {"text": text, "label": dataset.label_names[label]}
        for text, label in zip(dataset.texts, dataset.labels, strict=True)
    ]
    for row, spans in zip(rows, dataset.spans or (), strict=False):
        row["spans"] = [asdict(span) for span in spans]
    return rows


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    """A header, and one list of strings per record; spans become JSON."""
    body = [
        [cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()]
        for row in rows
    ]
    return [list(rows[0]) if rows else ["text", "label"], *body]


def _to_csv(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(_cells(rows))
    return buffer.getvalue().encode()


def _to_tsv(rows: list[dict[str, Any]]) -> bytes:
    lines = []
    for number, cells in enumerate(_cells(rows), 1):
        if any(char in cell for cell in cells for char in "\t\n\r"):
            raise InputError(
                f"row {number} has a tab or a line end, which TSV cannot hold: use .csv"
            )
        lines.append("\t".join(cells) + "\n")
    return "".join(lines).encode()


def _to_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _to_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


_RENDERERS: dict[str, Callable[[list[dict[str, Any]]], bytes]] = {
    ".csv": _to_csv,
    ".tsv": _to_tsv,
    ".jsonl": _to_jsonl,
    ".parquet": _to_parquet,
}
