"""Commands whose standard streams are closed, broken or not made for every character."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest


def program(app: str) -> list[str]:
    """A process that runs a few statements as an app."""
    start = "import json, os, sys\nfrom attnpriv.command import run_command\n"
    start += "from attnpriv.errors import InputError\n"
    app = textwrap.indent(app, "    ")
    code = f"{start}def app():\n{app}\nrun_command(app)\n"
    return [sys.executable, "-c", code]


def run(app: str, redirection: str = "") -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'exec "$@" {redirection}', "bash", *program(app)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("app", "code", "stderr"),
    [
        ("pass", 0, ""),
        ("sys.exit(1)", 1, ""),
        ("sys.exit()", 0, ""),
        (r"raise InputError('no\n\x1b[31mway')", 2, "error: no \N{REPLACEMENT CHARACTER}[31mway\n"),
        ("raise KeyboardInterrupt", 130, ""),
        ("sys.exit(130)", 130, ""),
        ("open('no/such')", 2, "error: cannot use no/such: No such file or directory\n"),
        ("os.scandir('/dev/null')", 2, "error: cannot use /dev/null: Not a directory\n"),
        ("error = InputError('no')\nerror.add_note('but')\nraise error", 2, "error: no; but\n"),
    ],
)
def test_an_end_has_its_code_and_one_line(app, code, stderr) -> None:
    done = run(f"sys.stdout.write('out')\n{app}")

    assert (done.returncode, done.stdout, done.stderr) == (code, "out", stderr)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(("app", "code"), [("", 0), ("raise InputError('no')", 2)])
def test_closed_streams_end_nothing_and_take_no_file_for_them(tmp_path, closed, app, code) -> None:
    file = tmp_path / "file"
    statements = (
        f"with open({str(file)!r}, 'w') as file:",
        "    file.write('only this')",
        "    os.write(1, b'out')",
        "    sys.stderr.write('note')",
        "    sys.stderr.flush()",
    )

    done = run("\n".join((*statements, app)), closed)

    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert file.read_text() == "only this"


@pytest.mark.parametrize("length", [1, 1_000_000])
def test_a_reader_that_leaves_ends_the_command_without_a_word(length) -> None:
    app = f"sys.stdin.readline()\nsys.stdout.write('x' * {length})"
    with subprocess.Popen(
        program(app), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        process.stdin.close()
        said = process.stderr.read()

    assert (process.returncode, said) == (141, b"")


@pytest.mark.parametrize(
    "command", ["attnpriv --version", "attnpriv-client --help", "attnpriv-server token"]
)
def test_so_it_is_with_each_of_the_commands(command) -> None:
    name, option = command.split()
    read_end, write_end = os.pipe()
    os.close(read_end)

    done = subprocess.run(
        [Path(sys.executable).with_name(name), option],
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=60,
    )

    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


def test_log_lines_may_come_late() -> None:
    app = "import atexit, logging\nlogging.basicConfig()\natexit.register(logging.error, 'late')"

    done = run(app)

    assert (done.returncode, done.stderr) == (0, "ERROR:root:late\n")


def test_a_broken_stderr_ends_nothing() -> None:
    app = "sys.stdin.readline()\nsys.stderr.write('x' * 100_000)\nsys.stderr.flush()\nsys.exit(1)"
    with subprocess.Popen(program(app), stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stderr.close()
        process.stdin.close()

    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error() -> None:
    done = run("sys.stdout.write('out')", "> /dev/full")

    assert done.returncode == 2
    assert done.stderr == "error: cannot write to stdout: No space left on device\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_escaped_as_in_json(encoding) -> None:
    text = "é, ε, \N{GRINNING FACE}, \udc80"
    app = f"sys.stdout.write(json.dumps({text!a}, ensure_ascii=False))"

    done = subprocess.run(
        program(app),
        capture_output=True,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout.decode(encoding)) == text
