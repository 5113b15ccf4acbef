"""The attnpriv-client command, as a process of its own, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from attnpriv.prediction import predict_probabilities

TEXT = "Mail [bold]jane.doe@example.com\x1b[31m at once"


def run_command(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [Path(sys.executable).with_name("attnpriv-client"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120)


def output(*arguments: str, stdin: bytes = b"") -> str:
    done = run_command(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def refusal(*arguments: str, stdin: bytes = b"") -> str:
    done = run_command(*arguments, stdin=stdin)
    assert done.returncode == 2
    assert done.stdout == b""
    error = done.stderr.decode()
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_predict_reads_files_of_more_texts_than_one_request_takes(target, run, tmp_path) -> None:
    texts = [f"message number {n} about a parcel" for n in range(150)]
    file = tmp_path / "texts.txt"
    file.write_bytes("\r\n".join(texts).encode("utf-8-sig"))

    found = json.loads(
        output("predict", "--target", target, "--model", run.name, "--file", str(file), "--json")
    )

    expected = [run.label_names[i] for i in predict_probabilities(run, texts).argmax(1)]
    assert [each["label"] for each in found["predictions"]] == expected


def test_predict_from_arguments_and_from_stdin_agree(target, run) -> None:
    options = ("predict", "--target", target, "--model", run.name, "--json")

    from_arguments = output(*options, "one text", "another text")
    from_stdin = output(*options, "-", stdin=b"one text\nanother text\n")

    assert from_arguments == from_stdin


def test_tables_are_readable_and_harmless(target, run) -> None:
    predicted = output("predict", "--target", target, "--model", run.name, TEXT)
    explained = output("explain", "--target", target, "--model", run.name, TEXT)

    assert "[bold]" in predicted
    assert "[EMAIL_ADDRESS]" in explained
    assert "cannot see: AGE" in explained
    assert "certified: no single attention weight exceeds" in explained
    assert "\x1b" not in predicted + explained


def test_explain_as_json(target, run) -> None:
    options = ("explain", "--target", target, "--model", run.name, "--json")

    found = json.loads(output(*options, "--label", run.label_names[1], "-", stdin=b"a\ntext"))

    assert found["target_label"] == run.label_names[1]
    assert [token["text"] for token in found["special_tokens"]] == ["[CLS]", "[SEP]"]
    assert found["tokens"][0]["text"] == "a"


def test_models_as_tables_and_as_json(target, run) -> None:
    assert run.name in output("models", "--target", target)
    assert "statement" in output("models", run.name, "--target", target)
    card = json.loads(output("models", run.name, "--target", target, "--json"))
    assert card["raw"]["statement"] == run.card["statement"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["predict", "--model", "MODEL"], b"", "expected texts, or - for stdin, or --file"),
        (["predict", "--model", "MODEL", "-"], b"a\n\nb\n", "line 2 is empty"),
        (["predict", "--model", "MODEL", "-"], b"", "line 1 is empty"),
        (["predict", "--model", "MODEL", "-"], b"a\xff", "expected UTF-8 in stdin, byte 1 is not"),
        (["predict", "--model", "MODEL", "--file", "/none"], b"", "cannot read /none"),
        (["predict", "--model", "nobody", "text"], b"", "NOT_FOUND: unknown model"),
        (["predict", "--model", "MODEL", " "], b"", "INVALID_ARGUMENT: "),
        (["explain", "--model", "MODEL", "--label", "x", "a"], b"", "INVALID_ARGUMENT: unknown"),
        (["models", "nobody"], b"", "NOT_FOUND"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(target, run, arguments, stdin, message) -> None:
    named = [run.name if each == "MODEL" else each for each in arguments]

    assert message in refusal(*named, "--target", target, stdin=stdin)


def test_an_unreachable_server() -> None:
    assert "UNAVAILABLE" in refusal("models", "--target", "127.0.0.1:1")
