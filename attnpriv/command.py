"""How a command runs, whatever becomes of it.

What goes wrong is one line on stderr. The standard streams may be closed, take ASCII alone, or lead
into a pipe that nobody reads any more.
"""

from __future__ import annotations

import codecs
import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

from attnpriv.errors import AttnprivError, InputError

BAD_INPUT, INTERRUPTED = 2, 128 + signal.SIGINT
READER_GONE = 128 + signal.SIGPIPE  # as shells report it of any program
ESCAPE = "attnpriv.escape"


def run_command(app: Callable[[], object]) -> NoReturn:
    """Run a Typer app and exit.

    The exit code is the app's, 2 after an AttnprivError, where a path cannot be used or stdout
    cannot be written, 130 after Ctrl-C, and 141 where whoever read stdout is gone, as with
    ``| head``. A character that a stream cannot encode is written as JSON escapes it. What a closed
    or broken stderr would have been told is lost, and nothing else is.

    Args:
        app: ends by SystemExit. What goes on after Ctrl-C, it says itself.
    """
    with _standard_streams():
        code = _code_of(app)
        code = _code_of(sys.stdout.flush) or code
    sys.exit(code)


def complain(message: str, notes: Iterable[str] = ()) -> None:
    """One line on stderr, in which no control character steers the terminal."""
    line = " ".join("; ".join((message, *notes)).split())
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    sys.stderr.write(f"{shown}\n")
    sys.stderr.flush()


def _code_of(step: Callable[[], object]) -> int:
    try:
        step()
    except AttnprivError as error:
        complain(f"error: {error}", getattr(error, "__notes__", ()))
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
    return 0


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
    """Else the next file or socket that is opened would be taken for a standard stream."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _null(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", closefd=False)


def _escape(error: UnicodeError) -> tuple[str, int]:
    r"""What JSON says in ASCII: ``\u00e9``, and a pair of these beyond the first 65,536."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[start : start + 2].hex() for start in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


class _Stream(io.TextIOWrapper):
    """A standard stream, and what follows where it cannot be written."""

    def __init__(self, stream: TextIO, when_broken: Callable[[OSError], None]) -> None:
        super().__init__(
            stream.buffer,
            encoding=stream.encoding,
            errors=ESCAPE,
            line_buffering=bool(stream.line_buffering),
            write_through=getattr(stream, "write_through", False),
        )
        self._stream = stream  # whose end would close the buffer
        self._when_broken = when_broken

    def write(self, text: str) -> int:
        with self._giving_up():
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._giving_up():
            super().flush()

    def close(self) -> None:
        """Stay open: handlers of log lines may outlive the command."""
        self.flush()

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is still in a buffer would fail again, in the end with a message of Python's own.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)
            self._when_broken(error)


def _end_for_want_of_stdout(error: OSError) -> None:
    if isinstance(error, BrokenPipeError):
        raise SystemExit(READER_GONE) from None
    raise InputError(f"cannot write to stdout: {error.strerror}") from error
