"""The ``attnpriv`` command: what it prints, and how it refuses bad input."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


def write_rows(path: Path, rows: int = 40) -> Path:
    lines = [f"{'spam' if i % 3 else 'ham'}\tmessage number {i} for you" for i in range(rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_data_list_make_and_show(command: Run, tmp_path: Path) -> None:
    assert "tickets" in command("data", "list").out
    file = tmp_path / "tickets.jsonl"
    assert command("data", "make", "tickets:rows=60,seed=1", "--out", file).code == 0
    shown = command("data", "show", file)
    assert "60 rows" in shown.out
    assert "gold spans of personal data" in shown.out
    text = json.loads(file.read_text(encoding="utf-8").splitlines()[0])["text"]
    assert text[:15] not in shown.out
    assert text[:15] in command("data", "show", file, "--rows", 1).out
    refused = command("data", "make", "tickets:rows=60", "--out", file)
    assert refused.code == 2
    assert command("data", "make", "tickets:rows=60", "--out", file, "--overwrite").code == 0


def test_train_and_evaluate_a_file(command: Run, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "mail.tsv", 120)
    trained = command(
        "train", "--data", data, "--epsilon", 3, "--out", tmp_path / "run", "--trainable", "head",
        "--steps", 3, "--temperature", 2, "--clip", 4, "--clip-mode", "norm",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    shown = re.search(r"expected batch (\d+) of (\d+) rows.*3 steps", trained.out, re.DOTALL)
    assert shown
    batch, rows = map(int, shown.groups())
    assert batch == rows // 2
    assert "differential privacy" in trained.out
    ours = command("evaluate", tmp_path / "run", "--data", data, "--json")
    result = json.loads(ours.out)
    assert result["rows"] == "held-out rows of the training data"
    assert result["n"] == 120 - rows
    assert [score["label"] for score in result["classes"]] == ["ham", "spam"]
    table = command("evaluate", tmp_path / "run", "--data", data)
    assert "F1" in table.out
    assert "run, held-out rows of the training data" in table.out


def test_training_without_privacy_is_announced_in_capitals(command: Run, tmp_path: Path) -> None:
    trained = command(
        "train", "--data", "tickets:rows=60", "--epsilon", "none", "--out", tmp_path / "run",
        "--trainable", "head", "--steps", 1,
    )  # fmt: skip
    assert trained.code == 0
    assert "TRAINED WITHOUT DIFFERENTIAL PRIVACY" in trained.out


def test_a_hardened_student_learns_from_a_plain_run(command: Run, tmp_path: Path) -> None:
    given = ["train", "--data", "tickets:rows=60", "--epsilon", "none", "--steps", 2, "--seed", 3]
    assert command(*given, "--out", tmp_path / "plain", "--pooling", "mean").code == 0
    teacher = ["--distil-from", tmp_path / "plain", "--out", tmp_path / "hardened"]
    assert command(*given, *teacher, "--clip", 0.97, "--batch-size", 16).code == 0
    text = (tmp_path / "hardened" / "model_card.md").read_text()
    assert re.search(r"\| distilled from \| plain, trained on the same rows", text)
    assert re.search(r"\| attention \| .* clipped to ±0\.97", text)
    assert "| trained part | all |" in text
    refused = command(*given, *teacher[:2], "--out", tmp_path / "other", "--train-size", 0.5)
    assert refused.code == 2
    assert "train_size 0.5" in refused.err


BAD_TRAINING = {
    "missing file": (["--data", "nowhere.tsv"], "nowhere.tsv"),
    "a folder as a file": (["--data", "folder.tsv"], "folder.tsv"),
    "unknown source": (["--data", "reviews"], "reviews"),
    "unknown source option": (["--data", "tickets:size=3"], "size=3"),
    "wrong column name": (["--text-column", "body"], "body"),
    "wrong column number": (["--text-column", "7", "--label-column", "0"], "7"),
    "one class only": (["--data", "one.tsv"], "class"),
    "empty text": (["--data", "empty.tsv"], "row 3"),
    "a text over 1 MB": (["--data", "long.tsv"], "row 2"),
    "invalid UTF-8": (["--data", "latin.tsv"], "UTF-8"),
    "epsilon of zero": (["--epsilon", "0"], "got 0.0"),
    "negative epsilon": (["--epsilon", "-1"], "got -1.0"),
    "epsilon in words": (["--epsilon", "much"], "'much'"),
    "delta of 1/N": (["--delta", "0.05"], "got 0.05"),
    "batch larger than the data": (["--batch-size", "41"], "got 41"),
    "unknown encoder": (["--encoder", "bert-huge"], "'bert-huge'"),
    "clip of zero": (["--clip", "0"], "clip"),
    "negative temperature": (["--temperature", "-1"], "temperature"),
    "unknown clip mode": (["--clip-mode", "hard"], "'hard'"),
    "unknown score": (["--score", "cosine"], "'cosine'"),
    "floor above the temperature": (["--temperature-floor", "2"], "temperature_floor"),
    "unknown accountant": (["--accountant", "gdp"], "'gdp'"),
    "unknown trainable": (["--trainable", "tail"], "'tail'"),
    "no steps": (["--steps", "0"], "steps"),
    "too little noise": (["--noise-multiplier", "0.1"], "a noise multiplier of at least"),
    "a private student": (["--distil-from", "folder.tsv"], "expected epsilon none"),
    "a teacher that is no run": (
        ["--epsilon", "none", "--distil-from", "folder.tsv"],
        "folder.tsv",
    ),
    "privacy's options without privacy": (
        ["--epsilon", "none", "--noise-seed", "0", "--delta", "1e-5"],
        "--delta, --noise-seed cannot be used with --epsilon none",
    ),
    "Poisson sampling without privacy": (
        ["--epsilon", "none", "--sampler", "poisson"],
        "--sampler cannot be used with --epsilon none",
    ),
    "a teacher and an encoder": (["--distil-from", "x", "--encoder", "minilm"], "'minilm'"),
    "nothing to resume": (["--resume"], "expected an unfinished training"),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    write_rows(folder / "good.tsv")
    (folder / "folder.tsv").mkdir()
    (folder / "one.tsv").write_text("ham\tfirst\nham\tsecond\n")
    (folder / "empty.tsv").write_text("ham\tfirst\nspam\tsecond\nham\t\nspam\tlast\n")
    (folder / "long.tsv").write_text("ham\tfirst\nspam\t" + "long " * 220_000 + "\nham\tlast\n")
    (folder / "latin.tsv").write_bytes("ham\tcafé\nspam\tother\n".encode("latin-1"))
    return folder


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_training_input_is_one_line_and_exit_code_2(
    command: Run, bad_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    options, named = BAD_TRAINING[case]
    monkeypatch.chdir(bad_files)
    given = ["--data", "good.tsv", "--epsilon", "1", "--trainable", "head", "--steps", "1"]
    outcome = command("train", *given, "--out", tmp_path / "run", *options)
    assert outcome.code == 2
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert named in errors[0]
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_tampered_run_and_a_missing_run_are_refused(
    command: Run, tiny_run: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_run, tmp_path / "copy"))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"\xff")
    for folder, named in ((copy, "does not match the manifest"), (tmp_path / "no", "run folder")):
        outcome = command("evaluate", folder, "--data", "tickets:rows=60")
        assert outcome.code == 2
        assert named in outcome.err


def test_labels_that_the_model_does_not_know_are_refused(
    command: Run, tiny_run: Path, bad_files: Path
) -> None:
    outcome = command("evaluate", tiny_run, "--data", bad_files / "good.tsv")
    assert outcome.code == 2
    assert "error: " in outcome.err


USAGE_ERRORS = {
    "train": "Missing option '--data'; see attnpriv train --help",
    "trian": "No such command 'trian'. Did you mean 'train'?; see attnpriv --help",
    "train --nope": "No such option: --nope",
    "train --clip-mode hard": "Invalid value for '--clip-mode': 'hard' is not one of 'clamp', 'ta",
    "train --clip big": "Invalid value for '--clip': expected a number or none, got 'big'; see",
    "train --train-size half": "'--train-size': expected a share below 1, such as 0.8, or a number",
    "train --steps few": "Invalid value for '--steps': expected a valid integer, got 'few'; see",
    r"tune --epsilon none\1": r"'--epsilon': expected a valid number, got 'none\\1'; see attnpriv",
    "train --data x --out y --epsilon much": "Invalid value for '--epsilon': expected a number or",
    "tune --distribution normal": "'normal' is not one of 'poisson', 'geometric'; see attnpriv",
    "data show x --rows -1": "'--rows': expected greater than or equal to 0, got '-1'; see attnp",
}


@pytest.mark.parametrize("line", USAGE_ERRORS)
def test_a_usage_error_is_one_line_and_exit_code_2(command: Run, line: str) -> None:
    done = command(*line.split())
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("error: ")
    said = done.err.replace("python -m pytest.", "")  # of the program that runs here
    assert USAGE_ERRORS[line] in said


def test_a_command_without_arguments_shows_its_help(command: Run) -> None:
    assert re.search(r"Usage: .*attnpriv \[OPTIONS\] COMMAND", command().out)
    assert command().code == 2
    assert command("--version").out.startswith("attnpriv ")


def test_options_are_listed_by_subject(command: Run) -> None:
    shown = command("train", "--help").out
    panels = re.findall("╭─ (.*?) ─", shown)
    assert panels == ["Options", "Data", "Model", "Attention", "Privacy", "Training", "Output"]
    attention = shown[shown.index("─ Attention") : shown.index("─ Privacy")]
    assert set(re.findall("--[a-z-]+", attention)) >= {"--temperature", "--clip", "--clip-mode"}
    assert "--epsilon" not in attention


@pytest.mark.exhaustive
def test_control_c_leaves_a_training_that_goes_on_with_resume(
    command: Run, interrupted: Run, tmp_path: Path
) -> None:
    """A real process on a terminal, and a real signal once its progress bar shows a step."""
    out = tmp_path / "run"
    arguments = [
        "train", "--data", "tickets:rows=400", "--epsilon", "8", "--noise-multiplier", "5",
        "--steps", "60", "--trainable", "head", "--out", str(out),
    ]  # fmt: skip
    code, said, _ = interrupted("ε ≤".encode(), *arguments)
    assert code == 130
    assert said == b""
    assert [path.name for path in tmp_path.iterdir()] == [".run.partial"]
    ledger = (tmp_path / ".run.partial" / "run" / "privacy_ledger.jsonl").read_text()
    begun = json.loads(ledger.splitlines()[-1])
    assert 3 <= begun["steps"] < 60
    assert begun["epsilon"] < 8
    refused = command(*arguments)
    assert refused.code == 2
    assert "go on with --resume" in refused.err
    other = command(*arguments, "--resume", "--decay", "cosine")
    assert other.code == 2
    assert "its training decay is 'constant', this command's is 'cosine'" in other.err
    resumed = command(*arguments, "--resume")
    assert resumed.code == 0, resumed.err
    assert "60 steps" in resumed.out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    card = json.loads((out / "model_card.json").read_text(encoding="utf-8"))
    assert begun["epsilon"] < card["epsilon"] <= 8
    assert command("evaluate", out, "--data", "tickets:rows=400", "--json").code == 0


@pytest.mark.exhaustive
def test_control_c_before_the_first_step_leaves_nothing_and_advises_no_resume(
    interrupted: Run, tmp_path: Path
) -> None:
    """The features of all rows are computed first, which takes a while."""
    arguments = [
        "train", "--data", "tickets:rows=4000", "--epsilon", "none", "--trainable", "head",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    code, _, shown = interrupted(b"preparing", *arguments)
    assert code == 130
    assert b"interrupted; nothing had begun yet, so there is nothing to resume" in shown
    assert list(tmp_path.iterdir()) == []
