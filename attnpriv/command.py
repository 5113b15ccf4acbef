"""How a command runs and ends, whatever goes wrong.

An error is one line on stderr. The standard streams may be closed, may take ASCII only, or may lead
into a pipe that nobody reads any more.
"""

from __future__ import annotations

import codecs
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, NoReturn, TextIO

import typer

from attnpriv.errors import AttnprivError, InputError

BAD_INPUT, INTERRUPTED = 2, 128 + signal.SIGINT
READER_GONE = 128 + signal.SIGPIPE  # as shells report it of any program
ESCAPE = "attnpriv.escape"
# Click's UsageError, of which typer exports this subclass only and may bring a copy of its own.
UsageError: Any = typer.BadParameter.__base__


def run_command(app: Callable[..., object]) -> NoReturn:
    """Run a Typer app, or any function, and exit.

    The exit code is the app's; 2 after a wrong option, an AttnprivError, a path that cannot be used
    or a stdout that cannot be written; 130 after Ctrl-C; and 141 if whoever read stdout is gone, as
    with ``| head``. A character that a stream cannot encode is written as JSON escapes it. If
    stderr is closed or broken, only what would have been written there is lost.

    Args:
        app: what to run. It says itself how to continue after Ctrl-C.
    """
    with _standard_streams():
        code = _code_of(
            partial(app, standalone_mode=False) if isinstance(app, typer.Typer) else app
        )
        code = _code_of(sys.stdout.flush) or code
    sys.exit(code)


def help_of(command: Callable[..., object]) -> str:
    """The docstring of a command with each paragraph in one line, for terminals of any width."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def complain(message: str, notes: Iterable[str] = ()) -> None:
    """Write one line to stderr, in which no control character can steer the terminal."""
    line = " ".join("; ".join((message, *notes)).split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    sys.stderr.write(f"{shown}\n")
    sys.stderr.flush()


def _code_of(step: Callable[[], object]) -> int:
    try:
        code = step()
    except AttnprivError as error:
        complain(f"error: {error}", getattr(error, "__notes__", ()))
        return BAD_INPUT
    except UsageError as error:
        _complain_of_usage(error)
        return BAD_INPUT
    except OSError as error:
        if error.filename is None:  # no path of the user's: a defect
            raise
        complain(f"error: cannot use {error.filename}: {error.strerror}")
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as ended:
        return int(ended.code or 0)
    return code if isinstance(code, int) else 0  # Typer returns the code of a typer.Exit


def _complain_of_usage(error: Any) -> None:
    """Nothing after a command without arguments: its help is on the screen already."""
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    for refused in getattr(error.__cause__, "errors", list)():  # pydantic's; it names no value
        plain = r"expected \1, got " + repr(refused["input"]).replace("\\", r"\\")
        message = re.sub(r"Input should be (.*?)(, unable to .*)?$", plain, message)
    if message:
        complain(f"error: {message}", [f"see {error.ctx.command_path} --help"] if error.ctx else ())


@contextmanager
def _standard_streams() -> Iterator[None]:
    codecs.register_error(ESCAPE, _escape)
    _take_closed_descriptors()
    before = sys.stdout, sys.stderr
    ours = (
        _Stream(before[0] or _null(1), when_broken=_end_for_want_of_stdout),
        _Stream(before[1] or _null(2), when_broken=lambda _: None),  # nobody can be told
    )
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in ours:
            with suppress(InputError, SystemExit):
                stream.flush()


def _take_closed_descriptors() -> None:
    """Open closed ones, or the next file that is opened would be taken for a standard stream."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _null(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", closefd=False)


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""Escape as JSON does: ``\u00e9``, and a pair of these for characters beyond 65,535."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[start : start + 2].hex() for start in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


class _Stream(io.TextIOWrapper):
    """A standard stream that calls ``when_broken`` if it cannot be written."""

    def __init__(self, stream: TextIO, when_broken: Callable[[OSError], None]) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=ESCAPE,
            line_buffering=bool(stream.line_buffering),
            write_through=getattr(stream, "write_through", False),
        )
        self._stream = stream  # kept, because it closes the buffer when it is collected
        self._when_broken = when_broken

    def write(self, text: str) -> int:
        with self._giving_up():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._giving_up():
            super().flush()

    def close(self) -> None:
        """Flush, but stay open: log handlers may outlive the command."""
        self.flush()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is still buffered would fail again, in the end with a message of Python's own.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            self._when_broken(error)


def _end_for_want_of_stdout(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise SystemExit(READER_GONE) from None
    raise InputError(f"cannot write to stdout: {error.strerror}") from error
