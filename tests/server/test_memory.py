"""Freed memory goes back to the system."""

from __future__ import annotations

import ctypes
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
