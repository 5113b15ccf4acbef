"""What is asked of whatever has the pieces of a job done in other processes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

POLL = 0.1  # seconds between looks at what other processes say

Piece = TypeVar("Piece", bound=Hashable)

Told = Callable[[int, int], None]
"""Called with what is done of a piece, and its total."""
Note = Callable[[Piece, int, int], None]
"""Called with a piece, what is done of it, and its total."""
Crew = Callable[[Iterable[Piece], Note[Piece]], Iterator[tuple[Piece, bytes]]]
"""Has pieces done, and gives each with its result as it is finished, in any order."""


class Job(Protocol[Piece]):
    """What another process must know to do pieces of some work; it gets there by pickle."""

    @property
    def resumable(self) -> bool:
        """Whether the command keeps what is finished, and goes on from there by --resume."""

    def packed(self) -> Job[Piece]:
        """The same job for a machine that does not see this one's files."""

    def begin(self) -> Callable[[Piece, Told], bytes]:
        """Get a process ready, once; what is returned does one piece."""


class Executor(Protocol):
    """Other processes than this one."""

    def crew(self, job: Job[Piece]) -> AbstractContextManager[Crew[Piece]]:
        """Have processes ready for a job until the block ends; whatever ends it stops them.

        Raises:
            InputError: there are none to be had, or one of them died over a piece.
        """
