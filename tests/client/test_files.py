"""Files of any length: what an interruption leaves, and how the work goes on."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import signal
import stat
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


@pytest.fixture
def begun(command, arguments, echo, partial) -> None:
    """64 lines are answered, then the server fails; after that it answers all."""

    def breaking(requests, context):
        yield from map(echo.answer, itertools.islice(requests, 2))
        context.abort(grpc.StatusCode.INTERNAL, "out of order")

    whole, echo.stream = echo.stream, breaking
    assert command(*arguments).code == 2
    assert len(records(partial)) == 64
    echo.stream = whole
    echo.requests.clear()


def record(line: int) -> dict:
    answer = {"label": f"text {line}", "probabilities": None, "truncated": False, "version": "1"}
    nothing_more = {"certified_substitutions": None, "micro_epsilon": 0}
    return {"line": line, "model": "echo", **answer, **nothing_more}


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
        f"error: 3 of 1000 lines in {answers} hold an error instead of a prediction; the first: "
        "line 41: INVALID_ARGUMENT: expected a line of at most 1048576 bytes, got a longer one\n"
    )
    found = records(answers)
    refused = [found.pop(position) for position in (999, 700, 40)]
    assert found == [*EXPECTED[:40], *EXPECTED[41:700], *EXPECTED[701:999]]
    assert refused[1] == {
        "line": 701,
        "model": "echo",
        "error": {
            "code": "INVALID_ARGUMENT",
            "message": "invalid UTF-8 at byte 3 of the line",
        },
    }
    assert not partial.exists()


def test_a_file_of_nothing_but_bad_lines(command, arguments, texts, answers) -> None:
    texts.write_bytes(b"\xff\n" * 2000)

    assert f"2000 of 2000 lines in {answers} hold an error" in command(*arguments).stderr
    assert len(records(answers)) == 2000


def test_no_line_is_held_in_memory_beyond_the_largest_text(tmp_path) -> None:
    file = tmp_path / "long"
    with file.open("wb") as made:
        made.truncate(64 << 20)
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
        f"interrupted; 96 answers are in {partial}; continue with --resume\n".encode(),
    )
    assert records(partial) == EXPECTED[:96]
    assert not answers.exists()

    echo.stream = whole
    echo.requests.clear()
    output(*arguments, "--resume")
    assert records(answers) == EXPECTED
    assert echo.requests[0].request.texts[0] == "text 97"


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize("lost", ["", json.dumps(record(65)), json.dumps(record(65)) + "\n{"])
def test_what_was_not_saved_is_asked_again(
    output, arguments, answers, partial, echo, tmp_path, lost
) -> None:
    with partial.open("a") as file:
        file.write(lost)

    output(*arguments, "--resume")

    assert records(answers) == EXPECTED
    assert echo.requests[0].request.texts[0] == "text 65"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["answers.jsonl", "texts.txt"]


def test_the_exit_code_is_that_of_the_whole_job(
    command, arguments, echo, texts, answers, request
) -> None:
    lines = texts.read_bytes().splitlines()
    lines[2], lines[900] = b"\xff", b"\xff"
    texts.write_bytes(b"\n".join(lines))
    request.getfixturevalue("begun")

    done = command(*arguments, "--resume")

    assert done.code == 2
    assert f"2 of 1000 lines in {answers} hold an error instead of a prediction" in done.stderr
    assert "the first: line 3: INVALID_ARGUMENT" in done.stderr


def _edited(lines: list[str]) -> list[str]:
    return [*lines[:9], "another text\n", *lines[10:]]


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    "edit",
    [
        _edited,
        lambda lines: lines[:63],
        lambda lines: lines[1:],
        lambda lines: [lines[0].strip() + lines[1], *lines[2:]],
        lambda lines: ["\n", *lines],
        lambda lines: [],
    ],
)
def test_the_answers_to_one_input_are_not_mixed_with_those_to_another(
    command, output, arguments, echo, texts, answers, partial, edit
) -> None:
    before, given = partial.read_bytes(), texts.read_text()
    texts.write_text("".join(edit(given.splitlines(keepends=True))))

    done = command(*arguments, "--resume")

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: cannot resume {partial}: {texts} does not start with the 64 lines that it "
        f"answers; give the same input as before, or delete {partial} to start again\n"
    )
    assert (partial.read_bytes(), echo.requests) == (before, [])
    texts.write_text(given)
    output(*arguments, "--resume")
    assert records(answers) == EXPECTED


@pytest.mark.usefixtures("begun")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "other"], "its model is 'echo', this command's is 'other'"),
        (["--version", "2"], "its version is None, this command's is '2'"),
    ],
)
def test_nor_are_those_of_another_model_or_version(
    command, arguments, partial, options, message
) -> None:
    assert message in command(*arguments, "--resume", *options).stderr
    assert len(records(partial)) == 64


def test_an_input_that_grew_is_gone_on_with(output, arguments, texts, answers, request) -> None:
    whole = texts.read_text()
    texts.write_text(whole[: whole.index("text 70")])
    request.getfixturevalue("begun")
    texts.write_text(whole)

    output(*arguments, "--resume")

    assert records(answers) == EXPECTED


def test_a_last_line_is_the_same_with_its_end_and_without() -> None:
    def fingerprint(content: bytes) -> str:
        return Lines(io.BytesIO(content), "input").skip(2)

    assert fingerprint(b"a\nb") == fingerprint(b"a\nb\n") == fingerprint(b"a\nb\nc")
    others = (b"ab\n", b"a\n", b"", b"a\nbc", b"a\n\nb", b"\na\nb")
    assert fingerprint(b"a\nb") not in map(fingerprint, others)


@pytest.mark.usefixtures("begun")
def test_stdin_is_gone_on_with_where_it_is_the_same(
    command, output, arguments, texts, answers
) -> None:
    options = [each for each in arguments if each not in ("--file", str(texts))]

    other = command(*options, "-", "--resume", stdin=b"text 1\n")
    assert "stdin does not start with the 64 lines" in other.stderr

    output(*options, "-", "--resume", stdin=texts.read_bytes())
    assert records(answers) == EXPECTED


@pytest.mark.usefixtures("begun")
def test_what_is_kept_of_an_input_is_no_text(partial) -> None:
    state = partial.with_name(f"{partial.name}.state")

    assert "text " not in state.read_text()
    assert stat.S_IMODE(state.stat().st_mode) == 0o600


@pytest.mark.usefixtures("begun")
def test_two_processes_do_not_write_one_output(command, arguments, partial) -> None:
    with partial.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        done = command(*arguments, "--resume")

    assert f"another process is writing {partial}" in done.stderr
    assert len(records(partial)) == 64


def test_a_job_without_any_answer_leaves_nothing(command, arguments, echo, tmp_path) -> None:
    echo.stream = lambda requests, context: context.abort(grpc.StatusCode.NOT_FOUND, "no model")

    assert command(*arguments).stderr == "error: NOT_FOUND: no model\n"
    assert [each.name for each in tmp_path.iterdir()] == ["texts.txt"]


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
        f"64 answers are in {partial}; continue with --resume\n"
    )
    assert records(partial) == EXPECTED[:64]
    assert not answers.exists()


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        (None, [], "exists already: continue it with --resume, or delete it"),
        (None, ["--resume"], "answers.jsonl.partial.state is missing or unusable; delete"),
        ("[]", ["--resume"], "answers.jsonl.partial.state is missing or unusable; delete"),
        (
            '{"model": "echo", "version": null, "size": 99}',
            ["--resume"],
            "the end of it is missing",
        ),
    ],
)
def test_what_was_begun_otherwise_is_not_touched(
    command, arguments, answers, partial, state, options, message
) -> None:
    partial.write_text("no JSON\nat all")
    if state is not None:
        partial.with_name(f"{partial.name}.state").write_text(state)

    done = command(*arguments, *options)

    assert done.code == 2
    assert message in done.stderr
    assert partial.read_text() == "no JSON\nat all"
    assert not answers.exists()


def test_resuming_what_is_complete(output, command, arguments, answers) -> None:
    output(*arguments)

    assert f"nothing to resume: {answers} is complete" in command(*arguments, "--resume").stderr


def test_the_texts_are_not_overwritten(command, arguments, texts) -> None:
    before = texts.read_bytes()

    done = command(*arguments[:-1], str(texts))

    assert "which is the input" in done.stderr
    assert texts.read_bytes() == before


def test_an_input_that_is_not_there_is_one_line(command, arguments, texts, answers) -> None:
    answers.write_text("of before")
    texts.unlink()

    done = command(*arguments)

    assert done.stderr == f"error: cannot read {texts}: No such file or directory\n"
    assert answers.read_text() == "of before"


@pytest.mark.parametrize(
    ("path", "reason"),
    [("none/answers", "No such file or directory"), (".", "Is a directory")],
)
def test_an_output_that_cannot_be_written(command, arguments, echo, tmp_path, path, reason) -> None:
    done = command(*arguments[:-1], str(tmp_path / path))

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == f"error: cannot write {tmp_path / path}: {reason}\n"
    assert echo.requests == []
    assert [each.name for each in tmp_path.iterdir()] == ["texts.txt"]


def test_the_output_behind_a_link_is_replaced_and_keeps_its_permissions(
    output, arguments, answers, tmp_path
) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    target.chmod(0o640)
    answers.symlink_to(target)

    output(*arguments)

    assert answers.is_symlink()
    assert records(target) == EXPECTED
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "answers.jsonl",
        "target",
        "texts.txt",
    ]


def test_a_pipe_gets_each_answer_and_stays_a_pipe(command, arguments, answers, tmp_path) -> None:
    os.mkfifo(answers)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(answers.read_bytes()), daemon=True)
    reader.start()

    done = command(*arguments)
    reader.join(30)

    assert (done.code, done.stderr) == (0, "")
    assert list(map(json.loads, received[0].splitlines())) == EXPECTED
    assert answers.is_fifo()
    assert len(list(tmp_path.iterdir())) == 2
    assert "is a device or a pipe" in command(*arguments, "--resume").stderr


def test_a_device_stays_a_device(output, arguments, answers) -> None:
    try:
        os.mknod(answers, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        answers.open("wb").close()
    except OSError:
        pytest.skip("only root may make devices, and not in every container")

    output(*arguments)

    assert answers.is_char_device()


def test_answers_on_stdout_have_it_for_themselves(arguments) -> None:
    program = [Path(sys.executable).with_name("attnpriv-client"), *arguments[:-1], "/dev/stdout"]

    done = subprocess.run(program, capture_output=True, text=True, timeout=60)

    assert [json.loads(line) for line in done.stdout.splitlines()] == EXPECTED
    assert done.stderr == "1000 lines: /dev/stdout\n"


def test_a_bar_is_for_terminals_only(command, arguments, answers, monkeypatch) -> None:
    assert command(*arguments).stderr == ""
    answers.unlink()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")

    assert "1000 lines" in command(*arguments).stderr
