"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

SECONDS_APART = 2.0  # it takes milliseconds, in which nobody else gets memory

_trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)


def return_freed_memory() -> None:
    """Give what was freed back to the system, where the C library can: glibc can, musl cannot.

    glibc keeps what a thread freed for the next large block of the same size. Texts of many
    lengths free blocks of many sizes, so that a server would grow by hundreds of megabytes without
    anything being lost.
    """
    if _trim is not None:
        _trim(0)


class Returning:
    """Returns freed memory again and again, but not too often."""

    def __init__(self) -> None:
        self._due = 0.0

    def when_due(self) -> None:
        """``return_freed_memory``, unless that was a moment ago."""
        now = time.monotonic()
        if now >= self._due:
            return_freed_memory()
            self._due = now + SECONDS_APART
