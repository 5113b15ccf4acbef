"""``gates.toml`` and ``attnpriv gate``: what they take, what they refuse, how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnpriv.audit.results import Audit
from attnpriv.errors import InputError
from attnpriv.report import read_gates
from attnpriv.report.document import make_report, report_text

Run = Callable[..., Any]


def table(**changes: str) -> str:
    """A gate as TOML: its values as they are written."""
    values = {
        "name": '"a"',
        "measure": '"attention.overall.lift"',
        "operator": '"at most"',
        "threshold": "9",
        "run": '"plain"',
    }
    lines = (f"{key} = {value}\n" for key, value in {**values, **changes}.items())
    return "[[gate]]\n" + "".join(lines)


BAD_FILES = {
    "no TOML": ("[[gate]\n", "is not a TOML file"),
    "no gate": ("", "at least one [[gate]]"),
    "one table": (table()[1:].replace("]]", "]"), "at least one [[gate]]"),
    "a list of numbers": ("gate = [1]", "expected [[gate]] tables, got 1"),
    "another table": (f"{table()}[gates]\n", "[[gate]] tables only, got 'gates'"),
    "an unknown key": (table(limit="3"), "gate 'a': expected keys among"),
    "the line itself": (table(line="3"), "got 'line'"),
    "no threshold": ('[[gate]]\nname = "a"\nmeasure = "m"\noperator = "at most"', "no threshold"),
    "no name": ('\n[[gate]]\nmeasure = "m"', "the gate in line 2 has no name"),
    "NaN": (table(threshold="nan"), "threshold to be a finite number, got nan"),
    "infinity": (table(threshold="-inf"), "threshold to be a finite number, got -inf"),
    "too large": (table(threshold=f"1{400 * '0'}"), "threshold to be a finite number"),
    "a word": (table(threshold='"one"'), "threshold to be a number, got 'one'"),
    "true": (table(threshold="true"), "threshold to be a number, got True"),
    "another operator": (table(operator='"<="'), "at most, at least or one of, got '<='"),
    "another confidence": (table(confidence="0.99"), "confidence to be 0.95"),
    "no confidence": (table(confidence="nan"), "confidence to be 0.95"),
    "a name twice": (table() + table(), "got 'a' twice"),
    "a blank name": (table(name='" "'), "in one printable line"),
    "a name of two lines": (table(name='"a\\nb"'), "in one printable line"),
    "no records": (table(minimum_n="0"), "minimum_n to be at least 1, got 0"),
    "half a record": (table(minimum_n="1.5"), "minimum_n to be a whole number"),
    "a list in a subset": (table(subset="{head = [1]}"), "subset.head to be a string or a number"),
    "true in a subset": (table(subset="{head = true}"), "subset.head to be a string or a number"),
    "no subset": (table(subset="3"), "subset to be a table"),
    "a word for true": (table(allow_inconclusive='"yes"'), "to be true or false, got 'yes'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused(tmp_path: Path, case: str) -> None:
    text, words = BAD_FILES[case]
    path = tmp_path / "gates.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(words)):
        read_gates(path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        read_gates(tmp_path / "missing.toml")
    for content in (b"\xff\xfe", b"a = " + b"[" * 3000 + b"]" * 3000):
        (tmp_path / "bytes.toml").write_bytes(content)
        with pytest.raises(InputError, match="is not a TOML file"):
            read_gates(tmp_path / "bytes.toml")


def test_gates_know_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "gates.toml"
    other = table(name='"b"')
    path.write_text(f"# two\n\n{table()}\n {other}")
    first, second = read_gates(path)
    assert (first.name, first.line, second.name, second.line) == ("a", 3, "b", 10)
    path.write_text('gate = [{name = "a", measure = "m", operator = "at most", threshold = 1}]')
    assert [each.line for each in read_gates(path)] == [1]


@pytest.fixture
def written(synthetic: Audit, tmp_path: Path) -> Path:
    path = tmp_path / "audit.json"
    path.write_text(report_text(make_report(synthetic, None)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({}, 0, "PASS"),
        ({"threshold": "0.01"}, 1, "FAIL"),
        ({"minimum_n": "999"}, 2, "INCONCLUSIVE"),
        ({"minimum_n": "999", "allow_inconclusive": "true"}, 0, "INCONCLUSIVE"),
    ],
)
def test_the_command(
    command: Run, written: Path, tmp_path: Path, changes: dict[str, str], code: int, word: str
) -> None:
    gates, out = tmp_path / "gates.toml", tmp_path / "ci"
    gates.write_text(table(**changes))
    ended = command("gate", written, gates, "--out", out)
    assert (ended.code, ended.err) == (code, "")
    assert re.fullmatch(rf"{word} +a \(plain\): .+\n", ended.out)
    assert {path.name for path in out.iterdir()} == {"audit.sarif", "summary.md", "gates.xml"}
    as_json = command("gate", written, gates, "--json")
    assert as_json.code == code
    (plain,) = json.loads(as_json.out)["outcomes"]
    assert (plain["gate"], plain["verdict"], plain["blocks"]) == ("a", word, code > 0)


def test_no_file_is_taken_for_the_folder_of_the_outputs(
    command: Run, written: Path, tmp_path: Path
) -> None:
    (tmp_path / "gates.toml").write_text(table())
    ended = command("gate", written, tmp_path / "gates.toml", "--out", written)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"error: cannot write the report to {written}: Not a directory\n"


@pytest.mark.parametrize("wrong", ["version", "report", "gates", "measure"])
def test_the_command_refuses_in_one_line(
    command: Run, written: Path, tmp_path: Path, wrong: str
) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text({"gates": "gate = 3", "measure": table(measure='"x"')}.get(wrong, table()))
    if wrong == "version":
        text = written.read_text().replace('"schema_version": 1', '"schema_version": 2')
        written.write_text(text)
    if wrong == "report":
        written.write_text("{}")
    ended = command("gate", written, gates)
    assert (ended.code, ended.out) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", ended.err)


def test_an_audit_reads_its_gates_before_it_measures_anything(command: Run, tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text(table(threshold="nan"))
    ended = command(
        "audit", tmp_path / "no run", "--data", "tickets", "--out", tmp_path / "out",
        "--gates", tmp_path / "gates.toml",
    )  # fmt: skip
    assert ended.code == 2
    assert "threshold to be a finite number" in ended.err
    assert not (tmp_path / "out").exists()
