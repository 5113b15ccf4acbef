"""The output of a bulk job: one line of JSON for each line of the input.

A regular file is called ``NAME.partial`` until all answers are there, and then gets its name at
once. After an interruption it holds whole lines, and ``NAME.partial.state`` says what they answer,
so that the work can continue with the same input, and with no other. A device or a pipe gets each
answer as it comes; such a job cannot be resumed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from attnpriv.errors import InputError
from attnpriv.replacing import (
    keep_permissions,
    open_stream,
    replace_file,
    replaceable,
    sync_folder,
)
from attnpriv.work_folder import check_same
from attnpriv_client.client import Client
from attnpriv_client.errors import ServiceError
from attnpriv_client.files import Lines
from attnpriv_client.window import Answer

SAVE_SECONDS = 1.0  # the most work that a power cut can lose


@dataclass(frozen=True)
class State:
    """Which job this is and how far it has come; it holds no text.

    Attributes:
        model: the model that answers.
        version: the version that was asked for.
        lines: number of lines written.
        size: their size in bytes.
        input_sha256: SHA-256 of the lines of the input that they answer.
        refused: number of lines that hold an error instead of a prediction.
        first_refusal: the first of these errors.
    """

    model: str
    version: str | None
    lines: int = 0
    size: int = 0
    input_sha256: str = hashlib.sha256().hexdigest()
    refused: int = 0
    first_refusal: str = ""

    def after(self, answer: Answer, size: int, input_sha256: str) -> State:
        """The state after one more line."""
        refused, first = self.refused, self.first_refusal
        if isinstance(answer, ServiceError):
            refused, first = refused + 1, first or f"line {self.lines + 1}: {answer}"
        return replace(
            self,
            lines=self.lines + 1,
            size=self.size + size,
            input_sha256=input_sha256,
            refused=refused,
            first_refusal=first,
        )


class Output:
    """The place that the answers are written to.

    Attributes:
        state: the state of the job.
    """

    def __init__(self, file: IO[bytes], state: State) -> None:
        self.state = state
        self._file = file

    def write(self, answer: Answer, input_sha256: str) -> None:
        """Write the answer to the next line of the input.

        Args:
            answer: a prediction or an error.
            input_sha256: SHA-256 of the input up to and including that line.
        """
        line = json.dumps(self._record(answer), ensure_ascii=False).encode() + b"\n"
        self._file.write(line)
        # In a single assignment, since Ctrl-C may come between any two.
        self.state = self.state.after(answer, len(line), input_sha256)
        self.on_written()

    def on_written(self) -> None:
        """Flush, so that the reader of a pipe gets the line now."""
        self._file.flush()

    def _record(self, answer: Answer) -> dict[str, Any]:
        record = {"line": self.state.lines + 1, "model": self.state.model}
        if isinstance(answer, ServiceError):
            return {**record, "error": {"code": answer.code, "message": answer.message}}
        return {**record, **asdict(answer)}


class PartialOutput(Output):
    """An output in a file, which can be resumed."""

    def __init__(self, file: IO[bytes], state: State, state_file: Path) -> None:
        super().__init__(file, state)
        self._state_file = state_file
        self.save()

    def on_written(self) -> None:
        """Save now and then, since not every interruption leaves time for it."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Put whole lines on disk, and then the state that says what they answer."""
        self._file.flush()
        self._file.truncate(self.state.size)
        os.fsync(self._file.fileno())
        replace_file(self._state_file, json.dumps(asdict(self.state)).encode(), 0o600)
        self._saved = time.monotonic()


@contextmanager
def open_output(
    path: Path, model: str, version: str | None, lines: Lines, resume: bool
) -> Iterator[Output]:
    """Write a file that gets its name if the block ends well, and can be resumed otherwise.

    Args:
        path: path of the complete file; an existing file is replaced. A link is followed, a device
            or a pipe written to.
        model: the model that answers.
        version: the version that is asked for.
        lines: the input; to resume, the lines that have answers are read first.
        resume: continue a file that was begun, if there is one.

    Raises:
        InputError: the file cannot be written; it was begun and ``resume`` is not given; what was
            begun is for another model, version or input; or there is nothing to resume, because the
            file is complete or not a regular file.
        BrokenPipeError: nobody reads the pipe any more.
    """
    try:
        target = replaceable(path)
        if target is not None:
            with _open_partial(target, State(model, version), lines, resume) as output:
                yield output
        elif resume:
            raise InputError(f"cannot resume {path}: it is a device or a pipe, not a file")
        else:
            with open_stream(path) as stream:
                yield Output(stream, State(model, version))
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def write_answers(
    client: Client, lines: Lines, output: Output, on_answer: Callable[[int], None]
) -> None:
    """Ask about the lines that have no answer yet, and write an answer for each.

    Args:
        client: the client that asks.
        lines: the input, starting with its first line without an answer.
        output: the place to write the answers to.
        on_answer: called with the number of lines that have answers.

    Raises:
        ServiceError: the stream failed; ``output`` holds the answers up to then.
    """
    state = output.state
    with closing(client.predict_stream(state.model, lines, state.version)) as answers:
        for answer in answers:
            output.write(answer, lines.next_fingerprint())
            on_answer(output.state.lines)


@contextmanager
def _open_partial(target: Path, state: State, lines: Lines, resume: bool) -> Iterator[Output]:
    partial = target.with_name(f"{target.name}.partial")
    state_file = target.with_name(f"{target.name}.partial.state")
    begun = resume and partial.exists()
    if resume and not begun and target.exists():
        raise InputError(f"nothing to resume: {target} is complete")
    with _open_alone(partial, begun) as file:
        if begun:
            state = _read_state(partial, state_file, state, lines)
            file.seek(state.size)
        keep_permissions(target, file.fileno())
        output = PartialOutput(file, state, state_file)
        try:
            yield output
        except BaseException as error:
            if output.state.lines:
                output.save()
                error.add_note(
                    f"{output.state.lines} answers are in {partial}; continue with --resume"
                )
            else:
                partial.unlink()
                state_file.unlink()
            raise
        output.save()
    partial.replace(target)
    state_file.unlink()
    sync_folder(target.parent)


@contextmanager
def _open_alone(partial: Path, begun: bool) -> Iterator[IO[bytes]]:
    try:
        file = partial.open("r+b" if begun else "xb")
    except FileExistsError:
        raise InputError(
            f"{partial} exists already: continue it with --resume, or delete it"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"another process is writing {partial}") from None
        yield file


def _read_state(partial: Path, state_file: Path, ours: State, lines: Lines) -> State:
    """The state of what was begun, after reading the input that far; nothing is changed yet."""
    again = f"delete {partial} to start again"
    try:
        theirs = State(**json.loads(state_file.read_bytes()))
    except (OSError, ValueError, TypeError):
        raise InputError(
            f"cannot resume {partial}: {state_file.name} is missing or unusable; {again}"
        ) from None
    check_same(partial, *({"model": s.model, "version": s.version} for s in (theirs, ours)))
    if partial.stat().st_size < theirs.size:
        raise InputError(f"cannot resume {partial}: the end of it is missing; {again}")
    if lines.skip(theirs.lines) != theirs.input_sha256:
        raise InputError(
            f"cannot resume {partial}: {lines.name} does not start with the {theirs.lines} lines "
            f"that it answers; give the same input as before, or {again}"
        )
    return theirs
