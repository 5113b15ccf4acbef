"""Memory that the C library keeps after it was freed."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable

SECONDS_APART = 2.0  # it takes milliseconds, in which nobody else gets memory

# Options of glibc's mallopt and their values: the largest block that is taken from memory at hand
# rather than mapped anew, which can be 32 MiB, and how much of it may be free before it is given
# back, which ``Returning`` sees to instead.
MMAP_THRESHOLD, TRIM_THRESHOLD = (-3, 32 << 20), (-1, 1 << 30)

_library = ctypes.CDLL(None)
_trim: Callable[[int], int] | None = getattr(_library, "malloc_trim", None)
_set_option: Callable[[int, int], int] | None = getattr(_library, "mallopt", None)


def keep_freed_memory() -> None:
    """Have the C library use freed memory again within a batch, where it can be told to.

    Otherwise it maps every large tensor anew and hands it back at once, and the system zeroes each
    page of it: about a tenth of the time of a batch.
    """
    if _set_option is not None:
        for option, value in (MMAP_THRESHOLD, TRIM_THRESHOLD):
            _set_option(option, value)


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
