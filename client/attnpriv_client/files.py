"""Texts from a file of any length, line by line."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import IO

from rich.progress import TaskProgressColumn

from attnpriv.errors import InputError
from attnpriv.progress import progress_bars
from attnpriv_client.errors import InvalidRequestError
from attnpriv_client.window import BATCH_BYTES, Text

# A text of the largest size, plus a byte order mark and a line end.
LINE_BYTES = BATCH_BYTES + 8


class Lines:
    """The lines of a stream of UTF-8, read one at a time.

    Args:
        stream: a stream of bytes. A byte order mark at its beginning and carriage returns before
            line ends are not part of any text.
        name: name of the stream, for messages.

    Attributes:
        name: name of the stream.
        bytes_read: number of bytes read so far.
    """

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream = stream
        self.name = name
        self._number = 0
        self._hash = hashlib.sha256()
        self._fingerprints: deque[str] = deque()
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Text]:
        """The texts, with an error in place of a line that is not UTF-8 or too long for a text.

        Raises:
            InputError: the stream cannot be read.
        """
        while begin := self._read():
            self._number += 1
            is_whole = len(begin) < LINE_BYTES or begin.endswith(b"\n")
            end = begin if is_whole else self._read_to_end()
            if not end.endswith(b"\n"):
                self._hash.update(b"\n")  # a last line counts the same with its end and without
            self._fingerprints.append(self._hash.hexdigest())
            yield self._text(begin) if is_whole else _TOO_LONG

    def next_fingerprint(self) -> str:
        """SHA-256 of all lines up to and including the next one; each call moves on by one line.

        Raises:
            IndexError: that line has not been read yet.
        """
        return self._fingerprints.popleft()

    def skip(self, count: int) -> str:
        """Skip ``count`` lines, or as many as there are, and return the last one's fingerprint."""
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
        """Read to the end of a line without keeping it in memory."""
        while (part := self._read()) and not part.endswith(b"\n"):
            pass
        return part

    def _text(self, line: bytes) -> Text:
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            return _refusal(f"invalid UTF-8 at byte {error.start} of the line")
        return text.removesuffix("\n").removesuffix("\r")


def _refusal(message: str) -> InvalidRequestError:
    return InvalidRequestError("INVALID_ARGUMENT", message)


_TOO_LONG = _refusal(f"expected a line of at most {BATCH_BYTES} bytes, got a longer one")


@contextmanager
def progress_bar(lines: Lines, size: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr.

    Args:
        lines: the lines; the work is as far as they have been read, give or take the window.
        size: size of all lines in bytes, if it is known.

    Yields:
        A function to call with the number of lines that have answers.
    """
    with progress_bars(TaskProgressColumn()) as progress:
        task = progress.add_task("0 lines", total=size)
        yield lambda done: progress.update(
            task, completed=lines.bytes_read, description=f"{done} lines"
        )
