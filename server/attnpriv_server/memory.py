"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_freed_memory() -> None:
    """Give what was freed back to the system, where the C library can: glibc can, musl cannot.

    glibc keeps what a thread freed for the next large block of the same size. Explanations of
    texts of many lengths free blocks of many sizes, so that a server would grow by hundreds of
    megabytes without anything being lost.
    """
    if _trim is not None:
        _trim(0)
