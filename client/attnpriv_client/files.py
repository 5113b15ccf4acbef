"""Texts from a file of any length, line by line."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from attnpriv.errors import InputError
from attnpriv_client.errors import InvalidRequestError
from attnpriv_client.window import BATCH_BYTES, Text

# A text of the largest size, with what may stand around it in its line.
LINE_BYTES = BATCH_BYTES + 8


class Lines:
    """The lines of a stream of UTF-8, read as they are asked for.

    Args:
        stream: bytes; a mark at the beginning and carriage returns before line ends are no text.
        name: of the stream, for messages.

    Attributes:
        name: of the stream.
        bytes_read: so far.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self.name = name
        self._number = 0
        self._hash = hashlib.sha256()
        self._fingerprints: deque[str] = deque()
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Text]:
        """The texts, and an error in place of a line that is not UTF-8 or longer than any text.

        Raises:
            InputError: the stream cannot be read.
        """
        while begin := self._read():
            self._number += 1
            is_whole = len(begin) < LINE_BYTES or begin.endswith(b"\n")
            end = begin if is_whole else self._read_to_end()
            if not end.endswith(b"\n"):
                self._hash.update(b"\n")  # the last line is the same one with its end and without
            self._fingerprints.append(self._hash.hexdigest())
            yield self._text(begin) if is_whole else _TOO_LONG

    def next_fingerprint(self) -> str:
        """SHA-256 of all lines up to the first for which this was not asked before, that included.

        Raises:
            IndexError: that line is not read yet.
        """
        return self._fingerprints.popleft()

    def skip(self, count: int) -> str:
        """Pass over so many lines, or as many as there are; the fingerprint of the last."""
        fingerprint = self._hash.hexdigest()
        for _ in islice(self, count):
            fingerprint = self.next_fingerprint()
        return fingerprint

    def _read(self) -> bytes:
        try:
            part = self._stream.readline(LINE_BYTES)
        except OSError as error:
            raise InputError(f"cannot read {self.name}: {error.strerror}") from error
        self.bytes_read += len(part)
        self._hash.update(part)
        return part

    def _read_to_end(self) -> bytes:
        """The end of a line that no memory need hold."""
        while (part := self._read()) and not part.endswith(b"\n"):
            pass
        return part

    def _text(self, line: bytes) -> Text:
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            return _refusal(f"expected UTF-8, byte {error.start} of the line is not")
        return text.removesuffix("\n").removesuffix("\r")


def _refusal(message: str) -> InvalidRequestError:
    return InvalidRequestError("INVALID_ARGUMENT", message)


_TOO_LONG = _refusal(f"expected at most {BATCH_BYTES} bytes in a line, got more")


@contextmanager
def progress_bar(lines: Lines, size: int | None) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, where that is a terminal.

    Args:
        lines: how far they are read is how far the work is, but for the window.
        size: of all lines in bytes, where it is known.

    Yields:
        What to tell how many lines have answers.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.fields[lines]} lines"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("", total=size, lines=0)
        yield lambda done: progress.update(task, completed=lines.bytes_read, lines=done)
