"""Work on many threads that wait for each other once, not at every operation.

PyTorch divides each operation among OpenMP's threads, and every operation ends with a wait, in
which libgomp's threads spin. Next to a busy process, or under a CPU quota, some thread is always
about to be descheduled, and a kernel of a hundred small operations waits for it a hundred times.
So a pool of threads takes whole pieces of the work, and each thread runs its operations alone: a
thread that is descheduled delays only its own piece.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

Piece = TypeVar("Piece")
WORTH_IT = 1 << 15  # elements: as many as PyTorch itself leaves to one thread

_building = Lock()


def divide(work: Callable[[Iterator[Piece]], None], pieces: Sequence[Piece], threads: int) -> None:
    """Call ``work`` on the threads of a pool, which take the pieces from one iterator.

    Results do not depend on which thread takes which piece. The caller does the work itself if
    there is only one piece or one thread, or if no thread can be started.

    Args:
        work: processes the pieces that it is given, without gradients and autocast.
        pieces: pieces of the work, which write to different memory.
        threads: the number that ``threads_for`` returns.
    """
    shared = iter(pieces)
    if threads == 1 or len(pieces) == 1:
        work(shared)
        return
    inference = torch.is_inference_mode_enabled()

    def take() -> None:
        with torch.inference_mode(inference), torch.no_grad():
            work(shared)

    submitted = []
    try:
        with _building:  # one pool, and one at a time that changes the number of threads
            pool = _pool(torch.get_num_threads())
        for _ in range(min(threads, len(pieces))):
            submitted.append(pool.submit(take))
    except RuntimeError:  # the interpreter is shutting down, or the system has no threads left
        take()
    for done in submitted:
        done.result()


def threads_for(elements: int, device: torch.device) -> int:
    """The number of threads for operations on this many elements."""
    # A tracer records the operations of one thread and would miss those of others, and in an
    # exported graph the number of elements is a symbol that cannot be compared.
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if traced or is_in_torch_dispatch_mode() or device.type != "cpu" or elements <= WORTH_IT:
        return 1
    return torch.get_num_threads()


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads whose operations have no others to wait for."""
    pool = ThreadPoolExecutor(threads, "attention")
    together = Barrier(threads + 1)

    def start() -> None:
        torch.get_num_threads()  # else the first operation would reset it to the common number
        torch.set_num_threads(1)
        together.wait()

    try:
        for _ in range(threads):
            pool.submit(start)
        together.wait()
    except RuntimeError:
        together.abort()
        pool.shutdown()
        raise
    finally:  # restores the number of this thread, and of threads that PyTorch starts
        torch.set_num_threads(threads)
    return pool


def _after_in_child() -> None:
    _pool.cache_clear()  # a fork leaves the threads behind
    _building.release()


os.register_at_fork(
    before=_building.acquire, after_in_parent=_building.release, after_in_child=_after_in_child
)
