"""Which models are in memory, within a budget."""

from __future__ import annotations

import threading

from attnpriv_server.models.versions import Loaded, Version
from attnpriv_server.telemetry import Telemetry


class ModelMemory:
    """What is loaded, by model and version; the least recently used goes first.

    Safe in every thread, and never slow.

    Args:
        budget: bytes.
        telemetry: told of what comes and goes.
    """

    def __init__(self, budget: float, telemetry: Telemetry) -> None:
        self._budget = budget
        self._telemetry = telemetry
        self._lock = threading.Lock()  # never held for longer than a look at the dictionary
        self._loaded: dict[tuple[str, str], Loaded] = {}  # the least recently used first

    def get(self, version: Version) -> Loaded | None:
        """What answers for a version, if it is there; counts as a use."""
        key = version.name, version.version
        with self._lock:
            loaded = self._loaded.pop(key, None)
            if loaded is not None:
                self._loaded[key] = loaded
            return loaded

    def holds(self, name: str, version: str | None = None) -> bool:
        """Whether a version of a model is there; any of them where none is given."""
        with self._lock:
            return any(name == n and version in (None, v) for n, v in self._loaded)

    def has_room(self, loaded: Loaded) -> bool:
        """Whether it fits without another having to go."""
        with self._lock:
            return self._used() + loaded.memory_bytes <= self._budget

    def put(self, loaded: Loaded, seconds: float) -> None:
        """Take one in, in place of what has its key, and of others as far as the budget asks it."""
        key = loaded.version.name, loaded.version.version
        with self._lock:
            self._drop(key)
            while self._loaded and self._used() + loaded.memory_bytes > self._budget:
                self._drop(next(iter(self._loaded)))
            self._loaded[key] = loaded
            self._telemetry.model_loaded(*key, seconds, loaded.memory_bytes)

    def drop(self, version: Version) -> None:
        """Let one go, if it is there; whoever uses it may finish."""
        with self._lock:
            self._drop((version.name, version.version))

    def _drop(self, key: tuple[str, str]) -> None:
        if self._loaded.pop(key, None) is not None:
            self._telemetry.model_unloaded(*key)

    def _used(self) -> int:
        return sum(loaded.memory_bytes for loaded in self._loaded.values())
