"""Values that are made from files, and made anew when the files change."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from attnpriv.errors import InputError

Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Reloaded(Generic[Value]):
    """A value that is made from files, and again whenever they change; safe in every thread.

    A change that cannot be used leaves the old value in force, and so does a file that has gone;
    both are logged, once. Contents are compared, not time stamps: a file that is rewritten within
    one tick of the clock can keep its stamp and its size. Whoever rewrites a file in place risks
    that half of it is read, so replace files by renaming.

    Args:
        what: of the files, in errors and in the log.
        paths: the files.
        make: turns their contents into the value, or raises InputError with a sentence that quotes
            nothing of them, since it is logged.
        seconds: the files are read at most this often.

    Raises:
        InputError: a file cannot be read, or no value can be made of them.
    """

    def __init__(
        self,
        what: str,
        paths: Sequence[Path],
        make: Callable[[Sequence[bytes]], Value],
        seconds: float,
    ) -> None:
        self._what, self._paths, self._make, self._seconds = what, paths, make, seconds
        self._lock = threading.Lock()
        self._seen = self._read()
        self._next = time.monotonic() + seconds
        try:
            self._value = self._made(self._seen)
        except InputError as error:
            raise InputError(f"{what} {', '.join(map(str, paths))}: {error}") from None

    def get(self) -> Value:
        """The value of the last contents that could be used."""
        with self._lock:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + self._seconds
                self._refresh()
            return self._value

    def _refresh(self) -> None:
        contents = self._read()
        if contents == self._seen:
            return
        self._seen = contents
        try:
            self._value = self._made(contents)
        except InputError as error:
            fields = {"reload": self._what, "outcome": "refused", "reason": str(error)}
            logger.error("reload", extra={"fields": fields})
        else:
            logger.info("reload", extra={"fields": {"reload": self._what, "outcome": "done"}})

    def _made(self, contents: Sequence[bytes | str]) -> Value:
        readable = [content for content in contents if isinstance(content, bytes)]
        for content in contents:
            if isinstance(content, str):
                raise InputError(content)
        try:
            return self._make(readable)
        except InputError:
            raise
        except Exception as error:  # whatever it is, the old value stays in force, and it is said
            raise InputError(f"cannot be used ({type(error).__name__})") from error

    def _read(self) -> tuple[bytes | str, ...]:
        return tuple(map(_read, self._paths))


def _read(path: Path) -> bytes | str:
    """The file's bytes, or why it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        return f"cannot read {path.name}: {error.strerror}"
