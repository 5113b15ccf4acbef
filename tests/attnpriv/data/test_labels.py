"""Which labels become classes, whose names are published with the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from attnpriv.data import Dataset, read_file
from attnpriv.data.labels import LONG_LABEL, choose_classes
from attnpriv.errors import InputError
from attnpriv.labels import label_name

BODIES = [f"my account {i} was charged twice for the order of {i} May" for i in range(300)]
BODIES[7] = BODIES[3]  # 299 distinct texts


def write_rows(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    separator = "," if path.suffix == ".csv" else "\t"
    path.write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelled(path: Path, labels: Sequence[object]) -> Path:
    """A JSONL file of one text a label."""
    records = ({"text": f"text {i}", "label": label} for i, label in enumerate(labels))
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(InputError) as caught:
        read_file(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "charged" not in message
    return message


def test_texts_do_not_pass_for_classes_in_a_file_of_ids_and_texts(tmp_path: Path) -> None:
    rows = [(f"{i}", body) for i, body in enumerate(BODIES)]
    message = refusal(write_rows(tmp_path / "mails.tsv", rows))
    assert "299 different labels in 300 rows look like texts" in message
    assert "published with the model" in message
    assert "--classes 299" in message


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (BODIES, "299 different labels"),
        (BODIES[:20] * 15, "more classes (19) than different texts"),
    ],
)
def test_swapped_columns_are_refused(tmp_path: Path, texts: Sequence[str], expected: str) -> None:
    rows = [("text", "label"), *((body, f"{i % 2}") for i, body in enumerate(texts))]
    path = write_rows(tmp_path / "mails.csv", rows)
    assert len(read_file(path).label_names) == 2
    assert expected in refusal(path, text_column="label", label_column="text")


def test_a_label_of_one_row_among_many_may_be_a_text(tmp_path: Path) -> None:
    labels = ["ham", "spam"] * 20 + ["I was charged"]
    message = refusal(labelled(tmp_path / "a.jsonl", labels))
    assert "row 41: a label that no other row has" in message
    assert len(read_file(labelled(tmp_path / "b.jsonl", [*labels, labels[-1]])).label_names) == 3


def test_texts_of_which_many_come_again_do_not_pass_for_classes(tmp_path: Path) -> None:
    texts = BODIES[10:140] + ["thanks", "ok", "hello"] * 57
    rows = [("ok", "x"), *((f"{i}", text) for i, text in enumerate(texts))]
    path = write_rows(tmp_path / "a.tsv", [("text", "label"), *rows])
    assert "131 of 302 rows have a label of their own" in refusal(path)


def test_small_classes_of_which_some_stand_alone_need_no_confirmation(tmp_path: Path) -> None:
    labels = [f"intent {i % 50}" for i in range(92)]  # 8 of the 50 stand in one row
    assert len(read_file(labelled(tmp_path / "a.jsonl", labels + labels[:30])).label_names) == 50


def test_a_label_longer_than_labels_are_may_be_a_text(tmp_path: Path) -> None:
    long = "charged " * 7 + "twice"
    assert len(long) == LONG_LABEL + 1
    labels = ["short", long] * 3
    assert f"row 2: a label of over {LONG_LABEL} characters" in refusal(
        labelled(tmp_path / "a.jsonl", labels)
    )
    assert len(read_file(labelled(tmp_path / "b.jsonl", [long[1:], "short"])).labels) == 2


def test_unusual_classes_are_confirmed_by_their_number(tmp_path: Path) -> None:
    labels = [f"intent {i}" for i in range(30)]
    path = labelled(tmp_path / "a.jsonl", labels)
    assert "--classes 30" in refusal(path)
    assert "expected 29 classes, got 30" in refusal(path, classes=29)
    assert read_file(path, classes=30).label_names == tuple(sorted(labels))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_a_name_comes_before_a_number(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    names, rows = ["id", "0", "1"], [["7", "one", "x"], ["8", "two", "y"]]
    if suffix == ".csv":
        write_rows(path, [names, *rows])
    elif suffix == ".jsonl":
        path.write_text(
            "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)
        )
    else:
        columns = dict(zip(names, zip(*rows, strict=True), strict=True))
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    dataset = read_file(path, text_column="0", label_column="1")
    assert (dataset.texts, dataset.label_names) == (("one", "two"), ("x", "y"))
    if suffix != ".csv":  # there, numbers alone leave the first row a record
        dataset = read_file(path, text_column=1, label_column=2)
        assert (dataset.texts, dataset.label_names) == (("one", "two"), ("x", "y"))


HEADERS = {
    "the other of two": [("sentence", "label"), ("one", "x"), ("two", "x"), ("six", "y")],
    "quoted in TSV": [('"text"', '"label"'), ("one", "x"), ("two", "x"), ("six", "y")],
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_first_row_with_one_of_the_names_is_a_header(tmp_path: Path, case: str) -> None:
    dataset = read_file(write_rows(tmp_path / "a.tsv", HEADERS[case]))
    assert (dataset.texts, dataset.label_names) == (("one", "two", "six"), ("x", "y"))
    by_number = read_file(write_rows(tmp_path / "a.tsv", HEADERS[case]), text_column="0")
    assert by_number.texts == dataset.texts


def test_a_first_row_whose_label_comes_again_is_a_record(tmp_path: Path) -> None:
    rows = [("label", "one"), ("label", "two"), ("other", "six"), ("other", "ten")]
    dataset = read_file(write_rows(tmp_path / "a.tsv", rows))
    assert (len(dataset), dataset.label_names) == (4, ("label", "other"))


def test_a_header_over_rare_classes_is_refused_too(tmp_path: Path) -> None:
    rows = [(f"intent {min(i, 4)}", f"text {i}") for i in range(30)]
    path = write_rows(tmp_path / "a.csv", [("kind", "what"), *rows])
    assert "row 1 may be a header" in refusal(path)
    path.write_text("\n\n" + path.read_text())
    assert "row 3 may be a header" in refusal(path)
    assert len(read_file(path, label_column="kind", text_column="what")) == 30


@pytest.mark.parametrize("names", [("v1", "v2"), ('"v1"', '"v2"')])
def test_a_header_with_other_names_is_refused_and_its_names_are_asked_for(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    rows = [("ham", "one"), ("spam", "two"), ("ham", "six"), ("spam", "ten")]
    path = write_rows(tmp_path / "a.tsv", [names, *rows])
    for columns in ({}, {"text_column": "1", "label_column": "0"}):
        message = refusal(path, **columns)
        assert "row 1 may be a header" in message
        assert "--label-column" in message
    assert len(read_file(path, label_column="v1", text_column="v2")) == 4
    assert "if it is a header" in refusal(path, label_names=["ham", "spam"])


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("good", "good"),
        (" good\u00a0", "good"),
        ("very\u00a0 \u3000good\r\n", "very good"),
        ("e\u0301te\u0301", "été"),
        (1, "1"),
        (1.0, "1"),
        (-0.0, "0"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
        ("1.0", "1.0"),
    ],
)
def test_one_rule_names_the_class_of_a_cell(cell: object, name: str) -> None:
    assert label_name(cell) == name
    assert label_name(name) == name


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (float("nan"), "the label is missing"),
        ("NaN", "the label is missing"),
        (None, "the label is missing"),
        ("\u200b\ufeff", "the label is missing"),
        (float("inf"), "infinite"),
        ("a\x1b[2Jb", "a control character"),
        (b"x", "got bytes"),
    ],
)
def test_what_is_no_label_is_refused(cell: object, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        label_name(cell)


def test_equal_labels_of_several_forms_are_one_class(tmp_path: Path) -> None:
    dataset = read_file(labelled(tmp_path / "a.jsonl", [1, 1.0, "1", " 1\u00a0", 0, 0.0]))
    assert dataset.label_names == ("0", "1")
    assert dataset.labels == (1, 1, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good", "good"),
        ("1", "1.0"),
        ("7", "007"),
        ("good", "go\u200bod"),
        ("-0", "0"),
        ("x", '"x"'),
    ],
)
def test_spellings_that_may_be_one_class_are_asked_about(
    tmp_path: Path, one: str, other: str
) -> None:
    path = labelled(tmp_path / "a.jsonl", [one, other, "bad", "bad", one, other])
    assert "rows 1 and 2 have labels that differ only in" in refusal(path)
    assert read_file(path, classes=3).label_names == tuple(sorted([one, other, "bad"]))


@pytest.mark.parametrize("labels", [[1, True, 0, False], ["1", "True", "1", "True"]])
def test_numbers_among_true_and_false_are_asked_about(
    tmp_path: Path, labels: Sequence[object]
) -> None:
    path = labelled(tmp_path / "a.jsonl", [*labels, *labels])
    assert "some labels are numbers and others true or false" in refusal(path)
    classes = {label_name(label) for label in labels}
    assert read_file(path, classes=len(classes)).label_names == tuple(sorted(classes))


def test_at_evaluation_other_spellings_of_a_class_are_that_class(tmp_path: Path) -> None:
    """Models of earlier versions may call their classes 0.0 and 1.0."""
    path = labelled(tmp_path / "a.jsonl", [1.0, 0, "1"])
    assert read_file(path, label_names=["0.0", "1.0"]).labels == (1, 0, 1)
    both = labelled(tmp_path / "b.jsonl", ["A", "a"])
    assert read_file(both, label_names=["a", "A"]).labels == (1, 0)
    assert "none of a, A, b" in refusal(labelled(both, ["á"]), label_names=["a", "A", "b"])


def test_one_row_without_a_header_is_enough_where_the_classes_are_known(tmp_path: Path) -> None:
    for row in (("ham", "hello"), ("hello", "ham")):
        dataset = read_file(write_rows(tmp_path / "a.tsv", [row]), label_names=["ham", "spam"])
        assert (dataset.texts, dataset.labels) == (("hello",), (0,))
    assert "cannot tell text from label" in refusal(
        write_rows(tmp_path / "a.tsv", [("hello", "there")]), label_names=["ham", "spam"]
    )


def test_few_rows_and_two_classes_need_no_confirmation() -> None:
    assert choose_classes(
        ["x", "y"], ["same", "same"], first_row=1, has_header=False, confirmed=None
    ) == ("x", "y")


def parquet(path: Path, **odd: pyarrow.Array) -> Path:
    columns = {"text": ["one", "two"], "label": [0.0, 1.0], **odd}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize(
    "odd",
    [
        pyarrow.array([253_402_300_800_000_000] * 2, pyarrow.timestamp("us")),  # year 10000
        pyarrow.array([1] * 2, pyarrow.timestamp("ns")),
        pyarrow.array([0] * 2, pyarrow.timestamp("us", "Mars/Olympus")),
        pyarrow.array([b"\xff"] * 2).view(pyarrow.string()),
        pyarrow.array([{"at": 10**18, "n": 1}] * 2),
        pyarrow.array([10**18] * 2, pyarrow.duration("us")),
    ],
    ids=lambda array: str(array.type),
)
def test_other_columns_of_parquet_are_not_read(tmp_path: Path, odd: pyarrow.Array) -> None:
    dataset: Dataset = read_file(parquet(tmp_path / "a.parquet", odd=odd))
    assert (dataset.texts, dataset.label_names) == (("one", "two"), ("0", "1"))


def test_a_missing_number_in_parquet_is_no_class(tmp_path: Path) -> None:
    labels = pyarrow.array([0.0, float("nan")])
    assert "row 2: the label is missing" in refusal(parquet(tmp_path / "a.parquet", label=labels))
    texts = pyarrow.array(["one", None])
    assert "row 2: expected a text" in refusal(parquet(tmp_path / "a.parquet", text=texts))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("a.csv", "\n\r\ntext,label\none,x\ntwo,y\n"),
        ("a.tsv", "\ntext\tlabel\none\tx\ntwo\ty\n"),
        ("a.jsonl", '\n{"text": "one", "label": "x"}\n{"text": "two", "label": "y"}\n'),
    ],
)
def test_empty_lines_before_the_first_row_are_passed_over(
    tmp_path: Path, name: str, lines: str
) -> None:
    path = tmp_path / name
    path.write_text(lines, newline="")
    assert read_file(path).texts == ("one", "two")
    path.write_text(lines.replace("two", " "), newline="")
    row = len(lines.splitlines())
    assert f"row {row}: the text is empty" in refusal(path)
