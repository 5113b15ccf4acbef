"""Freed memory is used again, and goes back to the system when it is not."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from attnpriv_server.memory import Returning

BLOCK, BLOCKS = 100_000, 1000  # below the size from which glibc maps each block on its own


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def fall(returning: Returning) -> int:
    """By how many bytes less is in use, of those that were freed between others."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    blocks = [library.malloc(BLOCK) for _ in range(BLOCKS)]
    for block in blocks:
        ctypes.memset(block, 1, BLOCK)
    for block in blocks[:-1]:  # the last one keeps the heap from shrinking by itself
        library.free(block)
    kept = resident()
    returning.when_due()
    fallen = kept - resident()
    library.free(blocks[-1])
    return fallen


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_what_lies_between_blocks_in_use_goes_back_but_not_all_the_time() -> None:
    returning = Returning()

    assert fall(returning) > 0.9 * BLOCK * (BLOCKS - 1)
    assert fall(returning) < 0.1 * BLOCK * BLOCKS
    assert fall(Returning()) > 0.9 * BLOCK * (BLOCKS - 1)


# A thread frees four large tensors of one size and then takes four of another, again and again. It
# prints how many pages the system had to zero for that.
BATCHES = """
import resource, sys, threading
import numpy as np
from attnpriv_server.memory import keep_freed_memory

def batches(count):
    for number in range(count):
        large = [np.ones(2 ** (16 + number % 3)) for _ in range(4)]
        del large

def work():
    batches(3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    batches(21)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

if sys.argv[1] == "keep":
    keep_freed_memory()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    faults = {
        how: int(subprocess.check_output([sys.executable, "-c", BATCHES, how], text=True))
        for how in ("keep", "leave")
    }
    assert faults["keep"] < 100
    assert faults["leave"] > 2000, "a control: unless it is told to, the C library hands it back"
