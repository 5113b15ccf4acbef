"""Work on many threads that wait for each other once, not at every operation.

PyTorch divides each operation among OpenMP's threads, and each of these ends with a wait, in which
libgomp's threads spin. Beside a busy neighbour, or under a CPU quota, one of them is always about
to be descheduled, and a kernel of a hundred small operations waits a hundred times for it. So the
threads of a pool take whole pieces of the work, each with operations of a single thread, and who is
descheduled holds up its own piece alone.
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

    Which thread has a piece changes nothing in its result. One piece stays with the caller, and so
    does everything where ``threads_for`` says so, or where no thread can be started.

    Args:
        work: what to do with some of the pieces, without gradients and autocast.
        pieces: of the work; they write to different memory.
        threads: as ``threads_for`` says.
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
    except RuntimeError:  # the program ends, but not yet this thread; or the system has none left
        take()
    for done in submitted:
        done.result()


def threads_for(elements: int, device: torch.device) -> int:
    """How many threads to divide operations on so many elements among."""
    # What records the operations of a thread would miss those of others, and for an exported graph
    # the number of elements is no number that could be compared.
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
        torch.get_num_threads()  # or the first operation sets it to that of other threads
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
    finally:  # of this thread as before, and of threads that PyTorch starts
        torch.set_num_threads(threads)
    return pool


def _after_in_child() -> None:
    _pool.cache_clear()  # a fork leaves the threads behind
    _building.release()


os.register_at_fork(
    before=_building.acquire, after_in_parent=_building.release, after_in_child=_after_in_child
)
