"""Processes under measurement: trees that can be paused, and workers that answer in JSON."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

GRACE = 15.0  # seconds to end in


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class _Process:
    """A process; its start tells it from a later one of the same number."""

    number: int
    parent: int = field(compare=False)  # another one adopts it once its parent has ended
    started: int


class Tree:
    """A process with all that it starts; a context manager that ends them.

    Args:
        command: what to run.
        environment: variables beside those of this process.
        folder: where to run it, and to write what it prints, as ``log.txt``.
        stdin: see ``subprocess.Popen``, and so is ``stdout``.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        folder: Path,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.log = folder / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                cwd=folder,
                stdin=stdin,
                stdout=stdout or log,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the benchmark, which ends them in order
            )

    def pause(self) -> None:
        """Let none of them run: an idle server must not take time from the one measured."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo ``pause``."""
        self._signal(signal.SIGCONT)

    def memory(self) -> int:
        """Bytes: proportional set sizes, in which a shared page counts for its share."""
        return sum(_proportional_set_size(member.number) for member in self._members())

    def last_words(self) -> str:
        """The last line that it printed."""
        return (self.log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        members = self._members()
        self.go_on()
        with self.process:  # closes its pipes
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
            for member in members & _running():  # some leave theirs behind
                _send(member, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        for member in self._members():
            _send(member, number)

    def _members(self) -> set[_Process]:
        running = _running()
        found = [process for process in running if process.number == self.process.pid]
        for member in found:  # grows on the way
            found += [process for process in running if process.parent == member.number]
        return set(found)


class Worker(Tree):
    """A process that answers each line of JSON by another, until its stdin ends."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        super().__init__(command, environment, folder, subprocess.PIPE, subprocess.PIPE)

    def ask(self, question: Any) -> Any:
        """Wait for the answer to a question.

        Raises:
            RuntimeError: it ended; the message is the last line that it printed.
        """
        self.put(question)
        return self.answer()

    def put(self, question: Any) -> None:
        """Let it work on a question."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # there will be no answer then
            print(json.dumps(question), file=self.process.stdin, flush=True)

    def answer(self) -> Any:
        """Wait for the answer to the question that was put; see ``ask``."""
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.process.args} ended: {self.last_words()}")
        return json.loads(answer)


def _running() -> set[_Process]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # Number, name, state, parent, ..., start; the name may hold anything.
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended since
        found.add(_Process(int(stat.parent.name), int(fields[1]), int(fields[19])))
    return found


def _proportional_set_size(process: int) -> int:
    try:
        rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(
        1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
    )


def _send(process: _Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process.number, number)
