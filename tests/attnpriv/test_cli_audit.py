"""``attnpriv audit``: interrupted and resumed, and nothing of a record in anything it writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attnpriv.work_folder import hold_lock

Run = Callable[..., Any]

SECRET, SURNAME, WORD = "Quilfe", "Zandro", "plonkx"  # at most six letters: each is one token
SENSITIVE = f"{SECRET} {SURNAME}"
CONTENT = {"audit.json", "report.html"}


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records with marked words in each, one kind of them under a span of personal data."""
    path = tmp_path_factory.mktemp("marked") / "marked.jsonl"
    rows = []
    for i in range(50):
        text = f"order {i} {WORD} late, says {SENSITIVE} of desk {i % 7} to us"
        start = text.index(SENSITIVE)
        span = {"start": start, "end": start + len(SENSITIVE), "entity_type": "PERSON"}
        rows.append({"text": text, "label": "abcd"[i % 4], "spans": [span]})
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def leaks(folder: Path, *said: str | bytes) -> dict[str, list[str]]:
    """Which marks stand in which file below a folder, or in what was said."""
    contents = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    for i, each in enumerate(said):
        contents[f"said {i}"] = each.encode() if isinstance(each, str) else each
    found = {
        name: [mark for mark in (SECRET, SURNAME, WORD) if mark.lower().encode() in text.lower()]
        for name, text in contents.items()
    }
    return {name: marks for name, marks in found.items() if marks}


@pytest.mark.exhaustive
def test_an_interrupted_audit_resumes_and_nothing_leaks(
    command: Run, interrupted: Run, marked: Path, tmp_path: Path
) -> None:
    """A real process on a terminal and a real signal; then the same audit again, and on."""
    run, out = tmp_path / "runs" / "[run]", tmp_path / "out"
    trained = command(
        "train", "--data", marked, "--epsilon", "none", "--out", run, "--steps", 2,
        "--encoder", "scratch",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    asked = ["--data", marked, "--out", out, "--depth", "quick", "--documents", 4]
    arguments = ["audit", run, *asked]
    code, said, shown = interrupted(b"attacks on embeddings", *arguments, "--processes", 2)
    assert code == 130
    assert b"interrupted; to continue, run the same command with --resume" in shown
    assert b"Traceback" not in shown
    work = out / ".audit-work"
    kept = {path.name for path in work.iterdir()}
    assert {"identity.json", "0-attention-000000.npz"} <= kept
    assert {"0-attribution.json", "0-conductance.json", "0-occlusion.json"} <= kept
    assert [path.name for path in out.iterdir()] == [".audit-work"]
    assert leaks(out, said, shown) == {}
    again = tmp_path / "again"
    shutil.copytree(out, again)

    refused = command(*arguments)
    assert refused.code == 2
    assert "go on with --resume" in refused.err
    other = command(*arguments, "--resume", "--seed", 1)
    assert other.code == 2
    assert "its seed is 0, this command's is 1" in other.err
    (out / "report.html").mkdir()
    unwritten = command(*arguments, "--resume")
    assert unwritten.code == 2
    assert f"cannot write the report to {out}: Is a directory" in unwritten.err
    (out / "report.html").rmdir()
    resumed = command(*arguments, "--resume")  # what was measured is not lost
    assert resumed.code == 0, resumed.err
    assert "[run]" in resumed.out
    written = {path.name for path in out.iterdir()}
    assert written == {"audit.json", "report.html", "audit.sarif", "summary.md"}
    assert leaks(out, resumed.out, resumed.err, refused.err, other.err) == {}

    arguments[arguments.index(out)] = again
    shown_words = command(*arguments, "--resume", "--include-text", "--json")
    assert shown_words.code == 0, shown_words.err
    assert leaks(again) == {name: [WORD] for name in CONTENT}
    assert leaks(tmp_path / "runs", shown_words.err) == {}
    ours, theirs = (json.loads((each / "audit.json").read_bytes()) for each in (out, again))
    assert without_words(theirs) == without_words(ours), "nothing else depends on it"


def without_words(report: dict[str, Any]) -> dict[str, Any]:
    for result in report["results"]:
        for example in result["examples"]:
            for piece in example["pieces"]:
                piece.pop("word", None)
                piece.pop("joined", None)
    return report


def test_bad_options_are_one_line_and_leave_nothing(
    command: Run, tiny_run: Path, tmp_path: Path
) -> None:
    cases = {
        "at least one process, got 0": ["--processes", 0],
        "there is none": ["--resume"],
        "expected documents to be a whole number from 1 to 1000000000, got 0": ["--documents", 0],
    }
    for named, options in cases.items():
        outcome = command(
            "audit", tiny_run, "--data", "tickets:rows=300", "--out", tmp_path / "out", *options
        )
        assert outcome.code == 2
        assert named in outcome.err
        assert list(tmp_path.iterdir()) == []
    assert command("audit", tiny_run, "--data", "tickets", "--show-text").code == 2
    (tmp_path / "file").write_text("mine")
    no_folder = command("audit", tiny_run, "--data", "tickets:rows=300", "--out", tmp_path / "file")
    assert no_folder.code == 2
    assert no_folder.err == f"error: cannot write to {tmp_path / 'file'}: Not a directory\n"
    assert (tmp_path / "file").read_text() == "mine"


def test_a_second_audit_into_one_folder_is_refused(
    command: Run, tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / ".audit-work").mkdir(parents=True)
    with hold_lock(tmp_path / "out" / ".audit-work", "audit"):  # as the first one does
        outcome = command(
            "audit", tiny_run, "--data", "tickets:rows=300", "--out", tmp_path / "out"
        )
    assert outcome.code == 2
    assert outcome.err.strip() == (  # after the line of the progress bars
        f"error: another process is at work on the audit in {tmp_path / 'out'}: "
        "wait for it, or stop it"
    )
    assert [path.name for path in (tmp_path / "out").rglob("*")] == [".audit-work", "lock"]
