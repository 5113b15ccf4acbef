"""Texts from a file of any length, and their answers into another, line by line.

The answers stand in ``NAME.partial`` until all are there, and then take their name at once. What
interrupts the work leaves whole lines in it, from which the work can go on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from attnpriv.errors import InputError
from attnpriv.replacing import sync_folder
from attnpriv_client.client import Client
from attnpriv_client.errors import InvalidRequestError, ServiceError
from attnpriv_client.window import BATCH_BYTES, Answer, Text

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
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Text]:
        """The texts, and an error in place of a line that is not UTF-8 or longer than any text."""
        while line := self._read():
            self._number += 1
            yield self._text(line)

    def _read(self) -> bytes:
        line = self._stream.readline(LINE_BYTES)
        self.bytes_read += len(line)
        return line

    def _text(self, line: bytes) -> Text:
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            self._skip_rest()
            return _refusal(f"expected at most {BATCH_BYTES} bytes in a line, got more")
        try:
            text = line.decode("utf-8-sig" if self._number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            return _refusal(f"expected UTF-8, byte {error.start} of the line is not")
        return text.removesuffix("\n").removesuffix("\r")

    def _skip_rest(self) -> None:
        """Read on to the end of a line that no memory need hold."""
        while (part := self._read()) and not part.endswith(b"\n"):
            pass


def _refusal(message: str) -> InvalidRequestError:
    return InvalidRequestError("INVALID_ARGUMENT", message)


class Output:
    """A file of JSON lines that has its name only when it is complete.

    Attributes:
        lines: those written, now and before.
    """

    def __init__(self, file: IO[bytes], lines: int) -> None:
        self.lines = lines
        self._file = file
        self._complete_bytes = file.tell()

    def write(self, record: dict[str, Any]) -> None:
        """Add a line."""
        self._complete_bytes += self._file.write(
            json.dumps(record, ensure_ascii=False).encode() + b"\n"
        )
        self.lines += 1

    def drop_half_line(self) -> None:
        """Cut off what an interruption left of a line."""
        self._file.flush()
        self._file.truncate(self._complete_bytes)


@contextmanager
def open_output(path: Path, model: str, resume: bool) -> Iterator[Output]:
    """Write a file that takes its name when the block ends well, and else can be gone on with.

    Args:
        path: of the complete file; one that is there is replaced.
        model: whose answers are written; a file that was begun for another is refused.
        resume: go on with a file that was begun, where there is one.

    Raises:
        InputError: the file cannot be written; it was begun and ``resume`` is not given; what was
            begun is not of this model; or there is nothing to go on with, as it is complete.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        with _open_partial(partial, path, resume) as file:
            output = Output(file, _complete_lines(file, partial, model))
            try:
                yield output
            except BaseException as error:
                error.add_note(f"{output.lines} lines are in {partial}; go on with --resume")
                raise
            finally:
                output.drop_half_line()
                os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _open_partial(partial: Path, path: Path, resume: bool) -> IO[bytes]:
    if resume and partial.exists():
        return partial.open("r+b")
    if resume and path.exists():
        raise InputError(f"nothing to resume: {path} is complete")
    try:
        return partial.open("xb+")
    except FileExistsError:
        raise InputError(f"{partial} is there: go on with --resume, or delete it") from None


def _complete_lines(file: IO[bytes], partial: Path, model: str) -> int:
    """How many whole lines there are; the file then stands behind the last."""
    end, number, last = 0, 0, b""
    for line in file:
        if line.endswith(b"\n"):
            end, number, last = end + len(line), number + 1, line
    if number and not _is_record(last, number, model):
        raise InputError(f"expected {number} answers of this model in {partial}, got other content")
    file.seek(end)
    file.truncate()
    return number


def _is_record(line: bytes, number: int, model: str) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return False
    found = isinstance(record, dict) and (record.get("line"), record.get("model"))
    return found == (number, model)


@dataclass
class Refusals:
    """Texts without a prediction."""

    count: int = 0
    first: str = ""


def predict_lines(
    client: Client,
    model: str,
    version: str | None,
    lines: Lines,
    output: Output,
    on_answer: Callable[[int], None],
) -> Refusals:
    """Write one answer a line, from the first line that has none yet.

    Args:
        client: asks.
        model: its name.
        version: of the model.
        lines: all texts, those that have answers too.
        output: where the answers go.
        on_answer: told how many lines have answers.

    Raises:
        InputError: there are fewer lines than answers.
        ServiceError: the stream failed; ``output`` holds what was answered before.
    """
    refusals, texts, done = Refusals(), iter(lines), output.lines
    if sum(1 for _ in islice(texts, done)) < done:
        raise InputError(f"expected the same texts as before, got fewer than {done} lines")
    with closing(client.predict_stream(model, texts, version)) as answers:
        for answer in answers:
            output.write(_record(output.lines + 1, model, answer))
            on_answer(output.lines)
            if isinstance(answer, ServiceError):
                refusals.first = refusals.first or f"line {output.lines}: {answer}"
                refusals.count += 1
    return refusals


def _record(line: int, model: str, answer: Answer) -> dict[str, Any]:
    if isinstance(answer, ServiceError):
        error = {"code": answer.code, "message": answer.message}
        return {"line": line, "model": model, "error": error}
    return {"line": line, "model": model, **asdict(answer)}


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
