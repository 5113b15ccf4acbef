"""Several processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait as wait_for
from multiprocessing.queues import SimpleQueue
from typing import Any

from attnpriv.errors import InputError
from attnpriv.jobs.executor import POLL, Crew, Job, Note, Piece, Told


@dataclass(frozen=True)
class ProcessPool:
    """Processes of this machine, each of which imports the calling script.

    Attributes:
        count: how many, at least 1.

    Raises:
        InputError: the count is below 1.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InputError(f"expected at least one process, got {self.count}")

    @contextmanager
    def crew(self, job: Job[Piece]) -> Iterator[Crew[Piece]]:
        """As ``Executor.crew``."""
        context = multiprocessing.get_context("spawn")
        notes: SimpleQueue[Any] = context.SimpleQueue()
        others = set(multiprocessing.active_children())
        executor = ProcessPoolExecutor(self.count, context, _begin, (job, notes))
        try:
            yield partial(_have_done, executor, notes, job.resumable)
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # what it is at would keep us waiting
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def _have_done(
    executor: ProcessPoolExecutor,
    notes: SimpleQueue[tuple[int, int, int]],
    resumable: bool,
    pieces: Iterable[Piece],
    note: Note[Piece],
) -> Iterator[tuple[Piece, bytes]]:
    known = list(pieces)  # notes name them by number, since a piece may be large
    waiting = {executor.submit(_do, number, piece): piece for number, piece in enumerate(known)}
    try:
        while waiting:
            done, _ = wait(waiting, POLL, FIRST_COMPLETED)
            while not notes.empty():
                number, done_of_it, total = notes.get()
                note(known[number], done_of_it, total)
            for future in done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        way = "--resume and fewer --processes goes on"
        raise InputError(
            "a process that shared the work has ended, perhaps for want of memory: the same "
            f"command with {way if resumable else 'fewer --processes begins anew'}"
        ) from None


_piece: Callable[[Any, Told], bytes]  # how one is done, in a process that is one of several
_notes: SimpleQueue[Any]


def _begin(job: Job[Any], notes: SimpleQueue[Any]) -> None:
    """Get a new process ready. The first one decides on Ctrl-C, and takes the others with it."""
    global _piece, _notes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _piece, _notes = job.begin(), notes


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _do(number: int, piece: Any) -> bytes:
    return _piece(piece, lambda done, total: _notes.put((number, done, total)))
