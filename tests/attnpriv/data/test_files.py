from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from attnpriv.data import Span, load_dataset, read_file
from attnpriv.data.files import MAX_TEXT_BYTES, infer_columns
from attnpriv.data.labels import MAX_CLASSES
from attnpriv.data.tables import Table
from attnpriv.errors import InputError
from attnpriv.labels import MAX_LABEL_LENGTH

REAL = Path(__file__).parents[3].parent / "shared" / "data"
SECRET = "s3cret words"
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def jsonl(*records: object) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def refusal(path: Path, **options: Any) -> str:
    """The one line with which a file is refused; it names the file and quotes no record."""
    with pytest.raises(InputError) as caught:
        read_file(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert SECRET not in message
    return message


@pytest.mark.parametrize(
    ("file", "rows", "names", "ones", "first"),
    [
        ("sms_spam.tsv", 5574, ("ham", "spam"), 747, "Go until jurong point"),
        ("sst2_train.tsv", 6920, ("0", "1"), 3610, "a stirring , funny"),
        ("sst2_dev.tsv", 872, ("0", "1"), 444, "one long string of cliches"),
    ],
)
def test_real_files_need_no_options(
    file: str, rows: int, names: tuple[str, ...], ones: int, first: str
) -> None:
    if not (REAL / file).exists():
        pytest.skip("the real data in ../shared/data is not here")
    dataset = load_dataset(str(REAL / file))
    assert (dataset.name, len(dataset), dataset.label_names) == (file[:-4], rows, names)
    assert sum(dataset.labels) == ones
    assert dataset.texts[0].startswith(first)
    assert dataset.spans is None
    assert "which column holds the labels" in dataset.data_dependent


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "Label,extra,TEXT\r\nx,1,one\r\ny,2,two\r\n"),
        ("a.csv", "\ufefflabel, text \nx,one\ny,two"),
        ("a.tsv", "text\tlabel\none\tx\ntwo\ty\n"),
        ("a.tsv", "text\tlabel\r\none\tx\r\ntwo\ty\r\n\r\n"),
        ("a.jsonl", '{"text": "one", "label": "x"}\n{"id": 7, "label": "y", "text": "two"}\n'),
        ("A.JSONL", '{"Text": "one", "Label": "x"}\r\n{"Label": "y", "Text": "two"}\n\n'),
    ],
)
def test_columns_named_text_and_label_are_found(write: Write, name: str, content: str) -> None:
    dataset = read_file(write(name, content))
    assert dataset.name.lower() == "a"
    assert dataset.texts == ("one", "two")
    assert dataset.labels == (0, 1)
    assert dataset.label_names == ("x", "y")
    assert dataset.data_dependent == ("the names of the classes",)


def test_parquet_columns_named_text_and_label_are_found(tmp_path: Path) -> None:
    columns = {"n": [1, 2], "label": [3, 4], "text": ["one", "two"]}
    dataset = read_file(parquet(tmp_path / "a.parquet", columns))
    assert (dataset.texts, dataset.label_names) == (("one", "two"), ("3", "4"))


@pytest.mark.parametrize(("text", "label"), [("body", "kind"), ("BODY", 2), (1, "Kind"), (1, 2)])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_by_name_or_number(
    write: Write, tmp_path: Path, suffix: str, text: str | int, label: str | int
) -> None:
    header, rows = ["id", "body", "kind"], [["1", "one", "x"], ["2", "two", "y"]]
    if suffix == ".parquet":
        path = parquet(
            tmp_path / "a.parquet", dict(zip(header, zip(*rows, strict=True), strict=True))
        )
    elif suffix == ".jsonl":
        path = write("a.jsonl", jsonl(*(dict(zip(header, row, strict=True)) for row in rows)))
    else:
        # With numbers alone, a header that lacks text and label would be taken for a record.
        lines = rows if (text, label) == (1, 2) else [header, *rows]
        separator = "," if suffix == ".csv" else "\t"
        path = write(f"a{suffix}", "\n".join(separator.join(line) for line in lines))
    dataset = read_file(path, text_column=text, label_column=label)
    assert dataset.texts == ("one", "two")
    assert dataset.label_names == ("x", "y")


def test_numbers_skip_a_header_that_holds_text_and_label(write: Write) -> None:
    path = write("a.csv", "text,label,topic\none,x,p\ntwo,y,q\n")
    dataset = read_file(path, text_column=0, label_column=2)
    assert (dataset.texts, dataset.label_names) == (("one", "two"), ("p", "q"))


@pytest.mark.parametrize("content", ["a\tone\na\ttwo\nb\tsix\n", "one\ta\ntwo\ta\nsix\tb\n"])
def test_of_two_nameless_columns_the_poorer_one_holds_the_labels(
    write: Write, content: str
) -> None:
    dataset = read_file(write("a.tsv", content))
    assert (dataset.texts, dataset.labels) == (("one", "two", "six"), (0, 0, 1))
    assert "which column holds the labels" in dataset.data_dependent
    assert dataset.subset([1]).data_dependent == dataset.data_dependent


def test_inference_gives_the_positions_of_text_and_label() -> None:
    assert infer_columns(Table([["a", "a"], ["one", "two"]], rows=2)) == (1, 0)
    assert infer_columns(Table([["one", "two"], ["a", "a"]], rows=2)) == (0, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a\tone\nb\ttwo\n", "as many distinct values"),
        ("a\tone\t1\nb\ttwo\t2\n", "got 3 columns without a header: name"),
        ("one\ntwo\n", "got 1 columns without a header: name"),
    ],
)
def test_where_inference_fails_the_columns_are_asked_for(
    write: Write, content: str, expected: str
) -> None:
    assert expected in refusal(write("a.tsv", content))


def test_quotes_in_tsv_are_literal_and_only_line_feeds_end_a_row(write: Write) -> None:
    text = 'say "hi\u2028\x85\x0b\x1c, "" it'
    dataset = read_file(write("a.tsv", f"{text}\tx\ntwo\tx\nsix\ty\n"))
    assert dataset.texts[0] == text


def test_quoted_line_ends_commas_and_quotes_in_csv(write: Write) -> None:
    content = 'text,label\n"one\r\n""two"", six\n",x\nseven,y\n'
    assert read_file(write("a.csv", content)).texts == ('one\r\n"two", six\n', "seven")


@pytest.mark.parametrize(
    "text", ["nul \x00 byte", "😀 \U0010ffff", "e\u0301\u0301\u202e", "\ufeffx"]
)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_odd_characters_come_through_unchanged(
    write: Write, tmp_path: Path, suffix: str, text: str
) -> None:
    if suffix == ".parquet":
        path = parquet(tmp_path / "a.parquet", {"text": [text, "b"], "label": ["x", "y"]})
    elif suffix == ".jsonl":
        path = write("a.jsonl", jsonl({"text": text, "label": "x"}, {"text": "b", "label": "y"}))
    else:
        separator = "," if suffix == ".csv" else "\t"
        rows = (("label", "text"), ("x", text), ("y", "b"))
        path = write(f"a{suffix}", "\n".join(separator.join(row) for row in rows))
    assert read_file(path).texts == (text, "b")


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_text_at_the_limit_is_read_and_one_above_it_refused(write: Write, suffix: str) -> None:
    separator = "," if suffix == ".csv" else "\t"
    row = "é" * (MAX_TEXT_BYTES // 2)
    long = f"text{separator}label\n{row}{separator}x\n{{}}{separator}y\n"
    assert len(read_file(write(f"a{suffix}", long.format("short"))).texts[0]) == len(row)
    message = refusal(write(f"a{suffix}", long.format(row + "!")))
    assert f"row 3: expected a text of at most {MAX_TEXT_BYTES} bytes, got 1000001" in message


def test_gold_spans_from_json_in_a_cell_and_from_nested_lists(write: Write, tmp_path: Path) -> None:
    spans = [{"start": 0, "end": 3, "entity_type": "PERSON", "score": 0.5}]
    csv = 'text,label,spans\nAnn is,x,"{}"\nhere,y,[]\n'.format(
        json.dumps(spans).replace('"', '""')
    )
    records = [
        {"text": "Ann is", "label": "x", "spans": spans},
        {"text": "here", "label": "y", "spans": "[]"},
    ]
    columns = {"text": ["Ann is", "here"], "label": ["x", "y"], "spans": [spans, []]}
    expected = ((Span(0, 3, "PERSON"),), ())
    for path in (
        write("a.csv", csv),
        write("a.jsonl", jsonl(*records)),
        parquet(tmp_path / "a.parquet", columns),
    ):
        assert read_file(path).spans == expected
        assert read_file(path, spans_column=2).spans == expected
        assert read_file(path, text_column="text", spans_column="Spans").spans == expected


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([{"start": 0, "end": 13, "entity_type": "X"}], "expected spans with 0 <= start < end"),
        ([{"start": -1, "end": 3, "entity_type": "X"}], "expected spans with 0 <= start < end"),
        ([{"start": 3, "end": 3, "entity_type": "X"}], "expected spans with 0 <= start < end"),
        ([{"start": 0, "end": 3}], "whole numbers as start and end, and a name as entity_type"),
        (
            [{"start": 0, "end": 3, "entity_type": ""}],
            "whole numbers as start and end, and a name as entity_type",
        ),
        ([{"start": "0", "end": 3, "entity_type": "X"}], "whole numbers as start and end"),
        ([{"start": 0.5, "end": 3, "entity_type": "X"}], "whole numbers as start and end"),
        ([{"start": False, "end": 3, "entity_type": "X"}], "whole numbers as start and end"),
        ([7], "whole numbers as start and end"),
        ({"start": 0}, "expected a list of spans"),
        (None, "expected a list of spans"),
        ("[{", "the spans are not JSON"),
        ("[" * 100_000, "the spans are not JSON"),
    ],
)
def test_bad_spans_are_refused(write: Write, spans: object, expected: str) -> None:
    good = {"text": SECRET, "label": "y", "spans": []}
    path = write("a.jsonl", jsonl(good, {"text": SECRET, "label": "x", "spans": spans}))
    message = refusal(path)
    assert "row 2: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("a.csv", "text,label\na,x\nb,y\n", {"text_column": "body"}, "column named 'body' in the"),
        (
            "a.jsonl",
            jsonl({"text": "a"}),
            {"label_names": ["x"]},
            "one column named 'label', got 0",
        ),
        ("a.csv", "text,label\na,x\nb,y\n", {"label_column": 2}, "number from 0 to 1, got 2"),
        ("a.csv", "text,label\na,x\nb,y\n", {"label_column": -1}, "number from 0 to 1, got -1"),
        ("a.csv", "text,label\na,x\nb,y\n", {"spans_column": "tags"}, "column named 'tags' in the"),
        ("a.csv", "text,label\na,x\nb,y\n", {"label_column": "text"}, "different columns"),
        ("a.csv", "text,label,Text\na,x,b\nb,y,a\n", {}, "one column named 'text', got 2"),
        ("a.tsv", "a\tx\nb\ty\n", {"text_column": 0}, "one column named 'label', got 0"),
        ("a.csv", f"text,label\n{SECRET},x\n{SECRET},y,z\n", {}, "row 3 has 3 columns, expected 2"),
        ("a.csv", f"text,label\n{SECRET},x\n\nb,y\n", {}, "row 3 has 0 columns, expected 2"),
        ("a.tsv", f"{SECRET}\tx\n{SECRET}\n", {}, "row 2 has 1 columns, expected 2"),
        ("a.csv", "text,label\na,x\n \u00a0,y\n", {}, "row 3: the text is empty"),
        ("a.tsv", "x\ta\nx\t\ny\tb\n", {}, "row 2: the text is empty"),
        ("a.csv", "text,label\na,x\n\u200b\u0301,y\n", {}, "or has no visible character"),
        ("a.csv", f"text,label\na,x\n{SECRET}, \n", {}, "row 3: the label is missing"),
        ("a.jsonl", jsonl({"text": "a", "label": 1}, {"text": "b"}), {}, "2: the label is missing"),
        (
            "a.jsonl",
            jsonl({"text": "a", "label": 1}, {"label": 2}),
            {},
            "expected a text, got None",
        ),
        ("a.jsonl", jsonl({"text": 5, "label": 1}, {"label": 2}), {}, "expected a text, got int"),
        (
            "a.jsonl",
            jsonl({"text": "a", "label": [SECRET]}, {"text": "b", "label": 2}),
            {},
            "row 1: expected a label that is a string or a number, got list",
        ),
        ("a.csv", "text,label\na,x\nb,x\n", {}, "expected 2 to 1000 classes, got 1"),
        ("a.csv", "text,label\na,x\n", {}, "expected at least 2 rows of data, got 1"),
        ("a.csv", "text,label\n", {}, "expected at least 2 rows of data, got 0"),
        (
            "a.csv",
            "text,label\n",
            {"label_names": ["x"]},
            "expected at least 1 rows of data, got 0",
        ),
        ("a.csv", "", {}, "expected at least one row, got none"),
        ("a.jsonl", "\n\n", {}, "expected at least one row, got none"),
        (
            "a.csv",
            f"text,label\n{SECRET},x\n{SECRET},z\n",
            {"label_names": ["y", "x"]},
            "row 3: the label is none of y, x",
        ),
        ("a.csv", 'text,label\na,x\n"b,y\n', {}, "row 3 is malformed CSV"),
        ("a.csv", 'text,label\n"a"b,x\n', {}, "row 2 is malformed CSV"),
        ("a.tsv", b"ok\tx\n" + SECRET.encode() + b"\xff\ty\n", {}, "UTF-8 at byte 17 (line 2)"),
        ("a.csv", "text,label\na,x\nb,y\n".encode("utf-16"), {}, "UTF-8 at byte 0 (line 1)"),
        ("a.jsonl", b'{"text": "\xc3"}', {}, "UTF-8 at byte 10 (line 1)"),
        ("a.jsonl", jsonl({"text": "a", "label": 1}) + f'{{"{SECRET}', {}, "row 2 is not a JSON"),
        ("a.jsonl", jsonl([SECRET]), {}, "row 1 is not a JSON object"),
        ("a.jsonl", "[" * 100_000, {}, "row 1 is not a JSON object"),
        (
            "a.jsonl",
            jsonl({"text": "a", "label": 1}, {"text": f"{SECRET}\ud800", "label": 2}),
            {},
            "row 2: lone surrogate at character 12",
        ),
        ("a.parquet", b"PAR1 no PAR1", {}, "expected a readable Parquet file"),
        ("a.parquet", b"", {}, "expected a readable Parquet file"),
        ("a.txt", SECRET, {}, "expected a file ending in .csv, .tsv, .jsonl, .parquet"),
        ("a", SECRET, {}, "expected a file ending in"),
    ],
)
def test_bad_files_are_refused_in_one_line_that_quotes_no_record(
    write: Write, name: str, content: str | bytes, options: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(write(name, content), **options)


def test_a_column_of_texts_cannot_pass_for_labels(write: Write) -> None:
    """Label names are released with the model."""
    long = [f"{SECRET} {i}" + "." * MAX_LABEL_LENGTH for i in range(3)]
    path = write("a.csv", "text,label\n" + "".join(f"x,{label}\n" for label in long))
    assert "row 2: the label has over 100 bytes; is this the column of the texts?" in refusal(path)
    many = "".join(f"x,{SECRET} {i}\n" for i in range(MAX_CLASSES + 1))
    path = write("a.csv", "text,label\n" + many)
    assert "expected 2 to 1000 classes, got 1001" in refusal(path)


def test_at_evaluation_the_order_of_the_classes_is_kept_and_one_is_enough(write: Write) -> None:
    path = write("a.csv", "text,label\na,x\n")
    dataset = read_file(path, label_names=["z", "x"])
    assert (dataset.labels, dataset.label_names) == ((1,), ("z", "x"))
    assert dataset.data_dependent == ()


def test_paths_that_are_no_readable_file_are_refused(tmp_path: Path, write: Write) -> None:
    assert "No such file" in refusal(tmp_path / "none.csv")
    assert "Not a directory" in refusal(write("a.csv", "") / "b.csv")
    (tmp_path / "folder.csv").mkdir()
    assert refusal(tmp_path / "folder.csv").startswith("expected a regular file")
    os.mkfifo(tmp_path / "pipe.csv")
    assert "expected a regular file" in refusal(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="cannot read 'a"):
        read_file("a\0.csv")


def test_an_unreadable_file_is_refused(tmp_path: Path, write: Write) -> None:
    path = write("a.csv", "text,label\na,x\nb,y\n")
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything, except what cannot be read
        path = tmp_path / "memory.csv"
        path.symlink_to("/proc/self/mem")
    if not path.exists():
        pytest.skip("running as root on a system without /proc")
    assert "cannot read" in refusal(path)


def test_a_corrupt_parquet_file_is_refused_wherever_it_is_cut_or_bent(tmp_path: Path) -> None:
    columns = {"text": [f"text {i}" for i in range(99)], "label": ["x", "y", "z"] * 33}
    data = parquet(tmp_path / "good.parquet", columns).read_bytes()
    path = tmp_path / "bad.parquet"
    for at in range(0, len(data), 13):
        path.write_bytes(data[:at])
        assert "Parquet" in refusal(path)
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        try:  # a bent byte may go unnoticed, but never ends in another error
            read_file(path)
        except InputError as error:
            assert "bad.parquet" in str(error)  # noqa: PT017


def test_invalid_utf8_in_parquet_is_refused(tmp_path: Path) -> None:
    broken = pyarrow.array([b"fine", b"\xff\xfe"]).view(pyarrow.string())
    path = parquet(tmp_path / "a.parquet", {"text": broken, "label": ["x", "y"]})
    assert "UTF-8" in refusal(path)
