"""``attnpriv evaluate``: which rows are scored, and what is said of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnpriv.data import load_dataset
from attnpriv.runs.folder import CARD, MANIFEST, load_run, publish

Run = Callable[..., Any]
HELD_OUT = "held-out rows of the training data"


def write(path: Path, rows: list[str]) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def rows() -> list[str]:
    return [f"{'spam' if i % 3 else 'ham'}\tmessage number {i} for you" for i in range(60)]


@pytest.fixture
def run(command: Run, rows: list[str], tmp_path: Path) -> Path:
    trained = command(
        "train", "--data", write(tmp_path / "mail.tsv", rows), "--epsilon", "none", "--steps", 1,
        "--trainable", "head", "--out", tmp_path / "run",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    return tmp_path / "run"


def test_rows_of_a_changed_file_that_may_have_been_trained_on_are_left_out(
    command: Run, run: Path, rows: list[str], tmp_path: Path
) -> None:
    same = command("evaluate", run, "--data", tmp_path / "mail.tsv", "--json")
    known = json.loads(same.out)
    assert (known["rows"], known["n"] + known["rows_left_out"]) == (HELD_OUT, 60)
    assert "warning" not in same.err
    for changed in (rows[1:], [*rows, "ham\tone more"], [row.upper() for row in rows]):
        data = write(tmp_path / "changed.tsv", changed)
        outcome = command("evaluate", run, "--data", data, "--json")
        result = json.loads(outcome.out)
        assert result["rows"] == "rows that were not trained on"
        assert abs(result["n"] - known["n"]) <= 1
        assert f"{len(changed) - result['n']} rows are left out" in outcome.err
    split = load_run(run).split(load_dataset(str(tmp_path / "mail.tsv")))
    apart = write(tmp_path / "apart.tsv", [rows[i] for i in split.held_out])
    outcome = command("evaluate", run, "--data", apart, "--json")
    assert json.loads(outcome.out)["rows"] == "rows that were not trained on"
    assert json.loads(outcome.out)["accuracy"] == known["accuracy"]
    assert "warning" not in outcome.err
    whole = command("evaluate", run, "--data", data, "--all-rows")
    assert "of 60 rows may have been trained on" in whole.err
    assert "held-out" not in whole.out


def test_nothing_is_called_held_out_where_a_shuffled_split_meets_another_file(
    command: Run, run: Path, rows: list[str], tmp_path: Path
) -> None:
    card = json.loads((run / CARD).read_text())
    card["data"]["split"] = {"train_size": 0.8, "seed": 0}  # as earlier versions wrote it
    (run / CARD).write_text(json.dumps(card))
    (run / MANIFEST).unlink()
    publish(run, tmp_path / "old")
    same = command("evaluate", tmp_path / "old", "--data", tmp_path / "mail.tsv", "--json")
    assert json.loads(same.out)["rows"] == HELD_OUT
    assert json.loads(same.out)["n"] == 12
    data = write(tmp_path / "changed.tsv", rows[1:])
    outcome = command("evaluate", tmp_path / "old", "--data", data, "--json")
    assert outcome.code == 0
    assert "warning: this is not the training data: 59 of 59 rows may have" in outcome.err
    assert json.loads(outcome.out)["rows"] == "all rows, some of which may have been trained on"
    audit = command("audit", tmp_path / "old", "--data", data, "--out", tmp_path / "report")
    assert audit.code == 2
    assert "each of its rows may have been trained on" in audit.err
    assert not (tmp_path / "report").exists()


def test_one_row_without_a_header_can_be_scored(command: Run, run: Path, tmp_path: Path) -> None:
    for text in ("hello there", "another text", "a third one", "the last of them"):
        data = write(tmp_path / "one.tsv", [f"ham\t{text}"])
        outcome = command("evaluate", run, "--data", data, "--json")
        assert outcome.code == 0, outcome.err
        assert json.loads(outcome.out)["n"] == 1


@pytest.mark.parametrize("size", ["1.0", "1.5", "0", "0.0", "nan", "half", "-3", "60"])
def test_a_train_size_is_a_share_below_one_or_a_number_of_rows(
    command: Run, rows: list[str], tmp_path: Path, size: str
) -> None:
    data = write(tmp_path / "mail.tsv", rows)
    outcome = command(
        "train", "--data", data, "--epsilon", "none", "--out", tmp_path / "run",
        f"--train-size={size}",
    )  # fmt: skip
    assert outcome.code == 2
    assert re.search("^error: .*expected.* (share|rows)", outcome.err, re.MULTILINE)
    assert not (tmp_path / "run").exists()


def test_a_number_of_rows_is_trained_on_exactly_and_no_clip_can_be_said(
    command: Run, rows: list[str], tmp_path: Path
) -> None:
    data = write(tmp_path / "mail.tsv", rows)
    outcome = command(
        "train", "--data", data, "--epsilon", "none", "--steps", 1, "--trainable", "head",
        "--train-size", "37", "--clip", "none", "--out", tmp_path / "run",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    card = json.loads((tmp_path / "run" / CARD).read_text())
    assert card["data"]["rows_train"] == 37
    assert card["attention"]["clip"] is None
    assert any("the cut into training and held-out rows" in what for what in card["not_covered"])
