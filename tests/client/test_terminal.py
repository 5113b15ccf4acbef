"""The attnpriv-client command where its standard streams are not what a terminal has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("attnpriv-client")
EMOJI = "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{GRINNING FACE}"


def run(*arguments: str, redirection: str = "", **environment: str):
    """Run the program in a process of its own, with streams as a shell redirects them."""
    command = ["bash", "-c", f'exec "$@" {redirection}', "bash", PROGRAM, *arguments]
    variables = {**os.environ, **environment}
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=60, env=variables
    )


@pytest.fixture
def asked(serve, echo) -> list[str]:
    """Of a predict; the text is to follow."""
    return ["predict", "--target", serve(echo), "--model", "echo"]


@pytest.mark.parametrize("options", [["-"], ["-", "--output", "answers"]])
def test_a_closed_stdin_is_one_line(asked, options, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    done = run(*asked, *options, redirection="<&-")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot read stdin: it is closed\n"
    assert list(tmp_path.iterdir()) == []


def test_a_stdin_that_cannot_be_read_is_one_line(asked, tmp_path) -> None:
    done = run(*asked, "-", redirection=f"0> {tmp_path / 'for_writing'}")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: cannot read stdin")


def test_nothing_is_written_into_a_file_that_took_the_place_of_a_closed_stream(
    asked, tmp_path
) -> None:
    texts, answers = tmp_path / "texts", tmp_path / "answers"
    texts.write_text("a text\n")

    done = run(*asked, "--file", str(texts), "--output", str(answers), redirection="<&- >&- 2>&-")

    assert done.returncode == 0
    assert [json.loads(line)["label"] for line in answers.read_text().splitlines()] == ["a text"]


def test_any_text_goes_to_a_terminal_that_knows_ascii_alone(asked) -> None:
    as_json, as_table, error = (
        run(*asked, *options, PYTHONIOENCODING="ascii")
        for options in ([EMOJI, "--json"], [EMOJI], ["--file", f"/none/{EMOJI}"])
    )

    assert (as_json.returncode, as_table.returncode, error.returncode) == (0, 0, 2)
    assert as_json.stdout.isascii()
    assert json.loads(as_json.stdout)["predictions"][0]["label"] == EMOJI
    assert r"caf\u00e9 \ud83d\ude00" in as_table.stdout
    assert error.stderr.startswith(r"error: cannot read /none/caf\u00e9 \ud83d\ude00: No such")


@pytest.mark.parametrize("options", [["a text"], ["-", "--output", "/dev/stdout"]])
def test_a_reader_that_leaves_is_no_defect(asked, options) -> None:
    with subprocess.Popen(
        [PROGRAM, *asked, *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"a text\n" * 100)
        process.stdin.close()
        process.stdout.close()
        said = process.stderr.read()

    assert (process.returncode, said) == (141, b"")


def test_grpc_logs_nothing_beside_the_error(asked) -> None:
    done = run(*asked, "a text", "--tls", "--attempts", "1")

    assert done.returncode == 2
    assert done.stderr.startswith("error: UNAVAILABLE: ")
    assert done.stderr.count("\n") == 1


def test_grpc_logs_where_it_is_asked_to(asked) -> None:
    done = run(*asked, "a text", "--tls", "--attempts", "1", GRPC_VERBOSITY="INFO")

    assert "Handshake failed" in done.stderr
