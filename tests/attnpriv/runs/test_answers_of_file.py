"""Answers to a file of any size: the same rows, the same answers, nothing lost."""

from __future__ import annotations

import csv
import json
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from attnpriv.data import Dataset
from attnpriv.data.streams import count_rows, stream_rows
from attnpriv.errors import InputError
from attnpriv.jobs import ProcessPool
from attnpriv.runs import answers_of_file
from attnpriv.runs.answers_of_file import Columns, answer_file, has_begun
from attnpriv.runs.folder import Run, load_run
from attnpriv.runs.prediction import predict_probabilities

Command = Callable[..., Any]
UNREAD = ["", " \u200b ", None, "x" * 1_000_001]


@pytest.fixture(scope="session")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run)


@pytest.fixture
def texts(tickets: Dataset) -> list[str | None]:
    return [*tickets.texts[:45], *UNREAD, 'a "quoted", text']


def write(folder: Path, suffix: str, texts: list[str | None], column: str = "text") -> Path:
    path, ids = folder / f"texts.{suffix}", [f"id {row}" for row in range(len(texts))]
    if suffix == "parquet":
        table = pyarrow.table({"key": ids, column: pyarrow.array(texts, pyarrow.string())})
        pyarrow.parquet.write_table(table, path)
    elif suffix == "jsonl":
        rows = [{"key": key, column: text} for key, text in zip(ids, texts, strict=True)]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = [["key", column], *map(list, zip(ids, texts, strict=True))]
            if suffix == "csv":
                csv.writer(file).writerows(rows)
            else:
                file.writelines(f"{key}\t{text or ''}\n" for key, text in rows)
    return path


def read(path: Path) -> list[tuple[Any, ...]]:
    """Number, identifier, label and probabilities of each row."""
    if path.suffix == ".parquet":
        rows = pyarrow.parquet.read_table(path).to_pylist()
        return [tuple(row.values()) for row in rows]
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [
            (r["row"], r["key"], r["label"], *(r["probabilities"] or {}).values()) for r in rows
        ]
    with path.open(encoding="utf-8", newline="") as file:
        _, *lines = csv.reader(file)
    return [
        (int(row), key, label or None, *(float(value) for value in values if value))
        for row, key, label, *values in lines
    ]


@pytest.mark.parametrize("target", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("source", ["csv", "tsv", "jsonl", "parquet"])
def test_every_row_gets_its_answer_in_its_place(
    source: str,
    target: str,
    run: Run,
    texts: list[str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answers_of_file, "ROWS", 7)
    monkeypatch.setattr(answers_of_file, "WINDOW", 3)
    path, out = write(tmp_path, source, texts, "body"), tmp_path / f"answers.{target}"
    said: list[tuple[int, int]] = []
    answered = answer_file(
        run, path, out, Columns("body", "key"), progress=lambda *now: said.append(now)
    )
    assert (answered.rows, answered.unread) == (50, 4)
    assert said[-1][0] <= 50 <= said[-1][1]
    rows = read(out)
    assert [row[:2] for row in rows] == [(n + 1, f"id {n}") for n in range(50)]
    readable = [text for text in texts if text not in UNREAD]
    expected = iter(predict_probabilities(run, readable))
    for text, (_, _, label, *values) in zip(texts, rows, strict=True):
        if text in UNREAD:
            assert label is None
            assert not any(values)
        else:
            wanted = next(expected)
            assert label == run.label_names[int(wanted.argmax())]
            assert values == pytest.approx(wanted, abs=2e-6)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    content = out.read_bytes()
    assert not [text for text in readable if str(text).encode()[:20] in content]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted([path.name, out.name])


def test_an_interrupted_file_goes_on_with_what_is_missing(
    run: Run, texts: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_of_file, "ROWS", 7)
    path, out, once = write(tmp_path, "csv", texts), tmp_path / "a.csv", tmp_path / "once.csv"
    answer_file(run, path, once)
    asked: list[int] = []

    def stop(done: int, total: int) -> None:
        asked.append(done)
        if done >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        answer_file(run, path, out, progress=stop)
    assert has_begun(out)
    assert not out.exists()
    with pytest.raises(InputError, match="go on with --resume"):
        answer_file(run, path, out)
    with pytest.raises(InputError, match="its columns is"):
        answer_file(run, path, out, Columns(identifier="key"), resume=True)
    asked.clear()
    answer_file(run, path, out, resume=True, progress=lambda done, _: asked.append(done))
    assert asked[0] > 7  # what was answered before was not answered again
    assert out.read_bytes() == once.read_bytes()
    assert not has_begun(out)
    with pytest.raises(InputError, match="there is none"):
        answer_file(run, path, out, resume=True)


def test_another_process_gives_the_same_bytes(
    run: Run, texts: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_of_file, "ROWS", 20)
    path = write(tmp_path, "jsonl", texts)
    for name, executor in (("here", None), ("there", ProcessPool(1))):
        answer_file(run, path, tmp_path / f"{name}.csv", executor=executor)
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "there.csv").read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet", "txt"])
def test_memory_does_not_grow_with_the_file(suffix: str, tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        texts: list[str | None] = ["some words of a text " * 20] * rows
        path = tmp_path / f"{rows}.txt"
        path.write_text("\n".join(map(str, texts)))
        if suffix != "txt":
            path = write(tmp_path, suffix, texts)
        tracemalloc.start()
        try:
            found = sum(1 for _ in stream_rows(path))
            assert (found, abs(count_rows(path) - rows) <= 1) == (rows, True)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(20_000) < 1.5 * peak(4_000) + 200_000


def test_columns_are_found_by_name_or_because_there_is_one(tmp_path: Path) -> None:
    def rows(content: str, name: str = "a.csv", *columns: str | None) -> list[Any]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return [*stream_rows(tmp_path / name, *columns)]

    assert rows("one\ntwo\n") == [("one", None), ("two", None)]
    assert rows("text\ntwo\n") == [("two", None)]
    assert rows("body\ntwo\n", "a.csv", "body") == [("two", None)]
    assert rows("id,text\n7,two\n", "a.csv", None, "id") == [("two", "7")]
    assert rows('text,id\n"a\nb",7\n') == [("a\nb", None)]
    assert rows('id\ttext\n7\t"two\n', "a.tsv") == [('"two', None)]
    assert rows("\ufeffone\r\n\n", "a.txt") == [("one", None), ("", None)]
    assert rows("id,text\n7,two\n\n") == [("two", None)]
    assert rows('{"text": "one"}\n\n', "a.jsonl") == [("one", None)]
    assert rows("", "a.csv") == rows("", "a.txt") == []
    for content, name, columns, expected in (
        ("id,body\n7,two\n", "a.csv", (), "expected one column named 'text', got 0: name it with"),
        ("text,text\n7,two\n", "a.csv", (), "expected one column named 'text', got 2"),
        ("one\n", "a.csv", ("body",), "expected a column named 'body' in its header"),
        ("id,text\n7\n", "a.csv", (), "row 2: expected 2 cells, got 1"),
        (
            "id,text\n7,two\n",
            "a.csv",
            (None, "key"),
            "got 0: name it with --id-column",
        ),
        ("one\n", "a.txt", ("body",), "a text in each line and no columns"),
        ('{"text": "one"}\n[]\n', "a.jsonl", (), "line 2: expected a JSON object"),
        ("nothing", "a.parquet", (), "cannot be read"),
        ("one", "a.pdf", (), "expected a file ending in"),
    ):
        with pytest.raises(InputError, match=expected):
            rows(content, name, *columns)
    (tmp_path / "latin.txt").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read: UnicodeDecodeError"):
        [*stream_rows(tmp_path / "latin.txt")]
    with pytest.raises(InputError, match="No such file"):
        [*stream_rows(tmp_path / "none.csv")]


def test_the_command_says_what_it_wrote_and_what_it_could_not_read(
    command: Command, tiny_run: Path, texts: list[str | None], tmp_path: Path
) -> None:
    path, out = write(tmp_path, "jsonl", texts), tmp_path / "answers.parquet"
    done = command("predict", tiny_run, "--data", path, "--out", out, "--id-column", "key")
    assert (done.code, done.out) == (0, f"50 rows: {out}\n"), done.err
    assert done.err == (
        "warning: 4 of 50 rows have no text that the model can read; their labels are empty\n"
    )
    assert len(read(out)) == 50
    for options, expected in (
        (["--out", tmp_path / "a.xlsx"], "expected --out to end in .csv, .jsonl, .parquet"),
        (["--out", tmp_path / "none" / "a.csv"], "in a folder that is there"),
        (["--out", tmp_path / "a.csv", "--id-column", "label"], "other than row and label"),
        (["--out", tmp_path / "a.csv", "--resume"], "there is none"),
        (["--out", tmp_path / "a.csv", "--processes", "2", "--on", "ray"], "cannot be used with"),
    ):
        refused = command("predict", tiny_run, "--data", path, *options)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert expected in refused.err
        assert not list(tmp_path.glob("*a.*"))


def test_answers_are_those_of_any_batch(run: Run, tickets: Dataset) -> None:
    alone = np.concatenate([predict_probabilities(run, [text]) for text in tickets.texts[:8]])
    assert predict_probabilities(run, tickets.texts[:8]) == pytest.approx(alone, abs=1e-6)
