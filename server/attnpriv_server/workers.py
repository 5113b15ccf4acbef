"""Processes that compute predictions beside the server's own, which keeps its interpreter free."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, Self, TypeVar
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

from attnpriv_server.domain import Code, Precision, RefusedError
from attnpriv_server.link import Link, Message
from attnpriv_server.rows import ImageRefusedError, Row, flat
from attnpriv_server.telemetry import Telemetry

if TYPE_CHECKING:  # it imports PyTorch, and so do the workers meanwhile
    from attnpriv.runs.folder import Run
    from attnpriv_server.shared_tensors import SharedTensors

logger = logging.getLogger(__name__)

T = TypeVar("T")

MODULE = "attnpriv_server.worker"  # not imported here, since it imports PyTorch
SECONDS_TO_END = 5.0  # for a worker that was told to; then it is killed
SECONDS_TO_ANSWER = 120  # and to read on where it is told more than fits; one that hangs is killed


class WorkerError(Exception):
    """A worker could not do what it was asked; the message is the name of its error's type."""


class Workers:
    """Worker processes, each with a copy of every loaded model.

    Safe in every thread. A worker that dies is started again, with the models that it is asked for,
    and what it was computing is computed once more; where it dies of that too, that request fails
    and no other. One that gives no answer in two minutes is killed, which is the same.

    Args:
        processes: how many, at least 1. They start at once, and take a while.
        threads: of one forward pass.
        telemetry: told of workers that died.
    """

    def __init__(self, processes: int, threads: int, telemetry: Telemetry) -> None:
        self._workers = [_Worker(threads, telemetry) for _ in range(processes)]
        self._free = list(self._workers)
        self._wanted: set[_Worker] = set()  # by somebody who needs that one and no other
        self._changed = threading.Condition()
        self._keys = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, once they have computed what is under way."""
        for each in self._workers:
            with self._taken(each):
                each.end()

    def backend(self, run: Run, precision: Precision) -> WorkersBackend:
        """Load a model into each worker.

        Returns:
            What answers for it; once nobody holds that any more, the workers forget the model.

        Raises:
            WorkerError: a worker cannot hold it.
            MemoryError: for want of memory.
            RefusedError: a worker died of it, twice.
        """
        backend = WorkersBackend(self, next(self._keys), run, precision)
        finalize(backend, self._forget, backend.key)
        for each in self._workers:
            with self._taken(each):
                backend.memory_bytes += each.load(backend)
        return backend

    def classify(self, backend: WorkersBackend, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Have the next free worker compute; see ``WorkersBackend.classify``."""
        with self._taken() as free:
            return free.classify(backend, rows)

    def decode(self, backend: WorkersBackend, files: Sequence[bytes]) -> NDArray[np.uint8]:
        """Have the next free worker decode; see ``WorkersBackend.decode``."""
        with self._taken() as free:
            return free.decode(backend, files)

    def _forget(self, key: int) -> None:
        for each in self._workers:
            each.forgotten.append(key)  # not now: this can be called while the worker computes

    @contextmanager
    def _taken(self, wanted: _Worker | None = None) -> Iterator[_Worker]:
        """Take a worker for this thread alone: the one that is wanted, or the one used last."""
        with self._changed:
            if wanted is not None:
                self._wanted.add(wanted)
            while not (found := self._takeable(wanted)):
                self._changed.wait()
            self._free.remove(found[-1])
            self._wanted.discard(found[-1])
        try:
            yield found[-1]
        finally:
            with self._changed:
                self._free.append(found[-1])
                self._changed.notify_all()

    def _takeable(self, wanted: _Worker | None) -> list[_Worker]:
        if wanted is not None:
            return [each for each in self._free if each is wanted]
        return [each for each in self._free if each not in self._wanted]


class WorkersBackend:
    """A model in the workers; see ``Backend``.

    The bits are those of ``EagerBackend``. The weights are taken once by all processes: the run's
    own model uses the same memory from now on.

    Args:
        workers: where it is.
        key: by which they know it.
        run: its own model keeps its values.
        precision: as for ``make_backend``.

    Attributes:
        memory_bytes: of what all workers hold of it beside the run's weights.
    """

    def __init__(self, workers: Workers, key: int, run: Run, precision: Precision) -> None:
        self.key = key
        self.memory_bytes = 0
        self._workers = workers
        self._config = run.model.config.to_dict()
        self._precision = precision
        self._weights = _shared_weights(run)

    def classify(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """As ``Backend.classify``, and waits for a worker that is free.

        Raises:
            WorkerError: the computation failed.
            RefusedError: UNAVAILABLE, two workers died of it.
        """
        return self._workers.classify(self, rows)

    def decode(self, files: Sequence[bytes]) -> NDArray[np.uint8]:
        """As ``Backend.decode``, and waits for a worker that is free.

        Raises:
            ImageRefusedError: a file is no image that the model reads.
            RefusedError: UNAVAILABLE, two workers died of it.
        """
        return self._workers.decode(self, files)

    def message(self) -> Message:
        """The message that makes a worker load it."""
        how = {"config": self._config, "precision": self._precision, "layout": self._weights.layout}
        return Message({"load": self.key, **how}, file=self._weights.descriptor)


def _shared_weights(run: Run) -> SharedTensors:
    from attnpriv_server.shared_tensors import SharedTensors

    shared = SharedTensors(run.model.state_dict())
    run.model.load_state_dict(shared.tensors(), assign=True)
    return shared


class _Worker:
    """One process, from its first start over each restart to its end; for one thread at a time."""

    def __init__(self, threads: int, telemetry: Telemetry) -> None:
        self.forgotten: list[int] = []
        self._threads = str(threads)
        self._telemetry = telemetry
        self._loaded: dict[int, int] = {}  # bytes by key
        self._start()

    def load(self, backend: WorkersBackend) -> int:
        """Load a model into it, and return how many bytes that takes."""
        return self._insist(lambda: self._hold(backend))

    def classify(self, backend: WorkersBackend, rows: Sequence[Row]) -> NDArray[np.float32]:
        lengths, body = [len(row) for row in rows], flat(rows).tobytes()

        def compute() -> NDArray[np.float32]:
            self._hold(backend)
            found = self._ask(Message({"classify": backend.key, "lengths": lengths}, body))
            return np.frombuffer(found.body, np.float32).reshape(found.head["shape"])

        return self._insist(compute)

    def decode(self, backend: WorkersBackend, files: Sequence[bytes]) -> NDArray[np.uint8]:
        sizes, body = [len(each) for each in files], b"".join(files)

        def compute() -> NDArray[np.uint8]:
            self._hold(backend)
            found = self._ask(Message({"decode": backend.key, "sizes": sizes}, body))
            if "refused" in found.head:
                raise ImageRefusedError(found.head["refused"], found.head["reason"])
            return np.frombuffer(found.body, np.uint8).reshape(found.head["shape"])

        return self._insist(compute)

    def end(self) -> None:
        """Hang up, which ends the process."""
        self._link.close()
        try:
            self._process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _insist(self, work: Callable[[], T]) -> T:
        """Do the work; if the process dies of it, do it once more in a new one."""
        for _ in range(2):
            try:
                return work()
            except (EOFError, OSError):
                self._replace()
        raise RefusedError(Code.UNAVAILABLE, "the model cannot compute this now")

    def _hold(self, backend: WorkersBackend) -> int:
        if forgotten := self.forgotten[:]:  # another thread may append more at any time
            self._ask(Message({"forget": forgotten}))
            self._loaded = {k: size for k, size in self._loaded.items() if k not in forgotten}
            del self.forgotten[: len(forgotten)]
        if backend.key not in self._loaded:
            self._loaded[backend.key] = self._ask(backend.message()).head["memory_bytes"]
        return self._loaded[backend.key]

    def _ask(self, message: Message) -> Message:
        self._link.send(message)
        answer = self._link.receive()
        match answer.head.get("error"):
            case None:
                return answer
            case "MemoryError":
                raise MemoryError
            case kind:
                raise WorkerError(kind)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._link = Link(ours.detach())
        self._link.limit_waiting(SECONDS_TO_ANSWER)
        with theirs:
            # -P: what lies in the current folder is no module. A group of its own: Ctrl-C reaches
            # the server alone, which drains.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE, str(theirs.fileno()), self._threads],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )

    def _replace(self) -> None:
        self._link.close()
        self._process.kill()
        logger.error("worker", extra={"fields": {"exit": self._process.wait()}})
        self._telemetry.worker_died()
        self._loaded.clear()
        with suppress(OSError):  # then the next use finds the connection closed, and tries again
            self._start()
