"""Files of any length: what an interruption leaves, and how the work goes on."""

from __future__ import annotations

import io
import itertools
import json
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import grpc
import pytest

from attnpriv_client.files import Lines

LINES = 1000


@pytest.fixture
def texts(tmp_path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("".join(f"text {n}\n" for n in range(1, LINES + 1)))
    return file


@pytest.fixture
def answers(tmp_path) -> Path:
    return tmp_path / "answers.jsonl"


@pytest.fixture
def partial(answers) -> Path:
    return answers.with_name("answers.jsonl.partial")


@pytest.fixture
def arguments(serve, echo, texts, answers) -> list[str]:
    """Of a predict from the one file into the other."""
    options = ["--model", "echo", "--file", str(texts), "--output", str(answers)]
    return ["predict", "--target", serve(echo), *options]


def record(line: int) -> dict:
    answer = {"label": f"text {line}", "probabilities": None, "truncated": False, "version": "1"}
    return {"line": line, "model": "echo", **answer}


def records(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


EXPECTED = [record(line) for line in range(1, LINES + 1)]


def test_each_line_has_its_answer(output, arguments, answers, partial) -> None:
    said = output(*arguments)

    assert "1000 lines" in said
    assert records(answers) == EXPECTED
    assert not partial.exists()


def test_a_table_of_what_stdin_holds_is_not_needed(output, arguments, answers, texts) -> None:
    options = [each for each in arguments if each not in ("--file", str(texts))]

    said = output(*options, "-", "--json", stdin=texts.read_bytes())

    assert json.loads(said) == {"model": "echo", "lines": LINES, "output": str(answers)}
    assert records(answers) == EXPECTED


def test_a_line_that_is_no_text_has_its_error_and_the_others_go_on(
    command, arguments, texts, answers, partial
) -> None:
    lines = texts.read_bytes().splitlines()
    lines[700], lines[40], lines[999] = b"caf\xe9", b"\xff" * 3_000_000, b"x" * 2_000_000
    texts.write_bytes(b"\n".join(lines))

    done = command(*arguments)

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: 3 of 1000 lines have an error in place of a prediction in {answers}; the first: "
        "line 41: INVALID_ARGUMENT: expected at most 1048576 bytes in a line, got more\n"
    )
    found = records(answers)
    refused = [found.pop(position) for position in (999, 700, 40)]
    assert found == [*EXPECTED[:40], *EXPECTED[41:700], *EXPECTED[701:999]]
    assert refused[1] == {
        "line": 701,
        "model": "echo",
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "expected UTF-8, byte 3 of the line is not",
        },
    }
    assert not partial.exists()


def test_a_file_of_nothing_but_bad_lines(command, arguments, texts, answers) -> None:
    texts.write_bytes(b"\xff\n" * 2000)

    assert "2000 of 2000 lines have an error" in command(*arguments).stderr
    assert len(records(answers)) == 2000


def test_no_line_is_held_in_memory_beyond_the_largest_text(tmp_path) -> None:
    file = tmp_path / "long"
    with file.open("wb") as made:
        made.truncate(200 << 20)
        made.seek(0, io.SEEK_END)
        made.write(b"\nlast")
    with file.open("rb") as stream:
        tracemalloc.start()
        found = [each if isinstance(each, str) else each.code for each in Lines(stream, "long")]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert found == ["INVALID_ARGUMENT", "last"]
    assert peak < 8 << 20


def test_an_interruption_leaves_whole_lines_to_go_on_with(
    output, arguments, echo, answers, partial
) -> None:
    taken_in = threading.Event()

    def three_answers(requests, context):
        yield from map(echo.answer, itertools.islice(requests, 3))
        for request in requests:
            # The window has room for another request once an answer left it.
            if request.number == 16 + 2:
                taken_in.set()

    whole, echo.stream = echo.stream, three_answers
    program = [Path(sys.executable).with_name("attnpriv-client"), *arguments]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert taken_in.wait(60)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)

    assert process.returncode == 130
    assert said == (
        b"",
        f"interrupted; 96 lines are in {partial}; go on with --resume\n".encode(),
    )
    assert records(partial) == EXPECTED[:96]
    assert not answers.exists()

    echo.stream = whole
    echo.requests.clear()
    output(*arguments, "--resume")
    assert records(answers) == EXPECTED
    assert echo.requests[0].request.texts[0] == "text 97"


def test_a_half_line_is_not_gone_on_with(output, arguments, answers, partial) -> None:
    whole = "".join(json.dumps(record(line)) + "\n" for line in range(1, 5))
    partial.write_text(whole + json.dumps(record(5)))

    output(*arguments, "--resume")

    assert records(answers) == EXPECTED


def test_resuming_begins_where_nothing_was_begun(output, arguments, answers) -> None:
    output(*arguments, "--resume")

    assert records(answers) == EXPECTED


def test_a_server_that_goes_away_leaves_something_to_go_on_with(
    command, arguments, echo, answers, partial
) -> None:
    def breaking(requests, context):
        yield from map(echo.answer, itertools.islice(requests, 2))
        context.abort(grpc.StatusCode.INTERNAL, "internal\x1b[31m error")

    echo.stream = breaking

    done = command(*arguments)

    assert done.code == 2
    assert done.stderr == (
        "error: INTERNAL: internal\N{REPLACEMENT CHARACTER}[31m error; "
        f"64 lines are in {partial}; go on with --resume\n"
    )
    assert records(partial) == EXPECTED[:64]
    assert not answers.exists()


@pytest.mark.parametrize(
    ("begun", "options", "message"),
    [
        ("", [], "is there: go on with --resume, or delete it"),
        ("no JSON\nat all", ["--resume"], "expected 1 answers of this model in"),
        (json.dumps({**record(1), "model": "another"}) + "\n", ["--resume"], "of this model in"),
        (json.dumps(record(7)) + "\n", ["--resume"], "expected 1 answers of this model in"),
    ],
)
def test_what_was_begun_otherwise_is_not_touched(
    command, arguments, answers, partial, begun, options, message
) -> None:
    partial.write_text(begun)

    done = command(*arguments, *options)

    assert done.code == 2
    assert message in done.stderr
    assert partial.read_text() == begun
    assert not answers.exists()


def test_resuming_with_fewer_texts_than_answers(command, arguments, texts, partial) -> None:
    partial.write_text("".join(json.dumps(record(line)) + "\n" for line in range(1, 5)))
    texts.write_text("one line")

    assert "got fewer than 4 lines" in command(*arguments, "--resume").stderr


def test_resuming_what_is_complete(output, command, arguments, answers) -> None:
    output(*arguments)

    assert f"nothing to resume: {answers} is complete" in command(*arguments, "--resume").stderr


def test_the_texts_are_not_overwritten(command, arguments, texts) -> None:
    before = texts.read_bytes()

    done = command(*arguments[:-1], str(texts))

    assert "expected another file" in done.stderr
    assert texts.read_bytes() == before


def test_an_output_that_cannot_be_written(command, arguments, tmp_path) -> None:
    done = command(*arguments[:-1], str(tmp_path / "none" / "answers"))

    assert done.code == 2
    assert "cannot write" in done.stderr


def test_a_bar_is_for_terminals_only(command, arguments, answers, monkeypatch) -> None:
    assert command(*arguments).stderr == ""
    answers.unlink()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    assert "1000 lines" in command(*arguments).stderr
