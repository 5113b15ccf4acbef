"""The models of a server: versions, what of them is in memory, and what changes on disk.

``model_folders`` says where they are and what is refused; ``docs/models.md`` says it for operators.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import unicodedata
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from attnpriv.errors import InputError, RunFolderError
from attnpriv.runs.folder import Run
from attnpriv.runs.prediction import encode_texts
from attnpriv_server.backend import Backend, Precision, make_backend
from attnpriv_server.domain import RefusedError
from attnpriv_server.model_folders import (
    Found,
    Place,
    find_places,
    fingerprint,
    printable,
    read_place,
)
from attnpriv_server.telemetry import Telemetry, log_defect
from attnpriv_server.workers import WorkerError, Workers

logger = logging.getLogger(__name__)

# A folder that is replaced while it is read is read again, this often and with this much patience.
ATTEMPTS, PAUSE_SECONDS = 5, 0.1


class UnknownModelError(InputError):
    """There is no such model, or no such version of it."""


@dataclass(frozen=True, eq=False)
class Version:
    """A version of a model, with what is known of it without its weights.

    Attributes:
        name: of the model: that of its folder.
        version: a number from 1 on.
        path: the run folder.
        card: the model card, under this name.
        label_names: the K classes.
        hashes: the SHA-256 of each of its files. Another content is another object of this class.
    """

    name: str
    version: str
    path: Path
    card: Mapping[str, Any]
    label_names: tuple[str, ...]
    hashes: Mapping[str, str]

    @property
    def place(self) -> Place:
        """Where it is on disk."""
        return Place(self.name, self.version, self.path)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version that is ready to answer; whoever holds it may finish with it.

    Policies, labels and tokens of an answer have to be those of the object that computes it: the
    folder may have been replaced since its version was looked up.
    """

    version: Version
    run: Run
    backend: Backend

    @property
    def name(self) -> str:
        """Of the model."""
        return self.version.name

    @cached_property
    def memory_bytes(self) -> int:
        """Of the run's weights and of what the backend holds besides."""
        weights = self.run.model.state_dict().values()
        return sum(int(tensor.nbytes) for tensor in weights) + self.backend.memory_bytes


class Repository:
    """The models in a folder, watched while the server runs.

    Claims: what ``models`` lists was verified in full, and the newest version of each model has
    answered once. ``find`` and ``loaded`` never wait for the disk or for a model. A replaced folder
    takes over at once, after it was loaded and has answered; one that is refused leaves the last
    good version in its place. Not covered: weights that were evicted are gone, so once their folder
    is refused, requests for them fail until it is whole again.

    Args:
        folder: of run folders.
        precision: of the backends.
        memory_budget: bytes of all that is kept loaded, or None for no limit. What requests still
            hold after it was evicted or replaced comes on top, and the one model that is being
            loaded.
        telemetry: told of loads, failed ones too, and of evictions.
        refresh_seconds: between two looks at the folder.
        workers: compute predictions; None has this process do it.
    """

    def __init__(
        self,
        folder: Path,
        precision: Precision,
        memory_budget: int | None = None,
        telemetry: Telemetry | None = None,
        refresh_seconds: float = 2.0,
        workers: Workers | None = None,
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._precision = precision
        self._telemetry = telemetry or Telemetry()
        self._budget = math.inf if memory_budget is None else memory_budget
        self._memory = _Memory(self._budget, self._telemetry)
        self._catalog: dict[str, tuple[Version, ...]] = {}  # replaced, never changed
        self._loading = threading.Lock()  # held by whoever reads models: one at a time
        self._looks: dict[Place, _Look] = {}
        self._missing: set[Place] = set()
        self._unreadable = False
        self._refresh_seconds = refresh_seconds
        self._ready = threading.Event()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="models", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Read every version and load the newest ones, then begin to watch the folder.

        Raises:
            RunFolderError: there is no run folder, or one that cannot be trusted or served.
        """
        try:
            if not self._folder.is_dir():
                raise RunFolderError(f"expected a folder of run folders, got {str(self._folder)!r}")
            found = find_places(self._folder)
            self._root = self._folder.stat()
        except OSError as error:
            raise RunFolderError(f"cannot read {error.filename}: {error.strerror}") from error
        with self._loading:
            self._note_unreadable(found)
            for place in found.places:
                self._begin_with(place)
        if not self._catalog:
            refusals = "".join(f"; {look.refusal}" for look in self._looks.values())
            raise RunFolderError(f"expected run folders in {self._folder}, found none{refusals}")
        self._ready.set()
        self._watcher.start()

    def close(self) -> None:
        """Stop watching the folder; what is loaded stays so."""
        self._ready.clear()
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def ready(self) -> bool:
        """Whether the start is done and nobody has closed this.

        Then every version was verified and the newest one of each model has answered on the
        shortest and on the longest input. They are in memory, as far as the budget goes: without a
        budget, no request for a newest version has to wait for a load.
        """
        return self._ready.is_set()

    def models(self) -> dict[str, tuple[Version, ...]]:
        """What can be asked for: by name, sorted, the oldest version first."""
        return dict(self._catalog)

    def find(self, name: str, version: str | None = None) -> Version:
        """A version of a model; the newest where none is given.

        A name may be given with its accents composed or taken apart, as file systems and keyboards
        do either; a model that has exactly the name goes first.

        Raises:
            UnknownModelError: there is none.
        """
        catalog = self._catalog
        if name not in catalog:
            name = next((other for other in catalog if name in _spellings(other)), name)
        for found in reversed(catalog.get(name, ())):
            if version in (None, found.version):
                return found
        raise UnknownModelError("expected a model and a version that are served")

    def loaded(self, version: Version) -> Loaded | None:
        """What answers for a version now, if it is in memory; never waits, counts as a use."""
        return self._memory.get(version)

    def load(self, version: Version) -> Loaded:
        """What answers for a version now, loaded first where it has to be.

        It waits for the load that is under way, of whichever model: one at a time bounds the
        memory. Where the folder was replaced, the answer is of the new content.

        Raises:
            UnknownModelError: the version was removed.
            RunFolderError: it cannot be loaded.
        """
        with self._loading:
            place = self.find(version.name, version.version).place
            for _ in range(ATTEMPTS):
                loaded = self._memory.get(version)
                if loaded is not None:
                    return loaded
                before = fingerprint(place.path)
                self._refuse_again(place, before)
                try:
                    return self._load(place)
                except RunFolderError as error:
                    refusal = error
                if not _was_overtaken(place, before):
                    self._note(place, before, refusal)
                    break
                time.sleep(PAUSE_SECONDS)
            raise refusal

    def refresh(self) -> None:
        """Take in what has changed in the folder; the watching thread calls this.

        A version is withdrawn when two looks running have missed it: to replace a folder takes two
        renames, and a look may fall between them.
        """
        try:
            found = find_places(self._folder)
            self._check_root(found)
        except OSError as error:
            self._note_root(error)
            return
        self._unreadable = False
        for place in found.places:
            with self._loading:
                self._look_at(place)
        self._withdraw(found)
        with self._loading:
            self._note_unreadable(found)
            kept = {*found.places, *found.unreadable}
            self._looks = {place: look for place, look in self._looks.items() if place in kept}

    def _watch(self) -> None:
        while not self._closing.wait(self._refresh_seconds):
            try:
                self.refresh()
            except Exception as error:
                log_defect(error)

    def _check_root(self, found: Found) -> None:
        """Tell a folder that was emptied from the empty one under a disk that is gone."""
        if not (found.places or os.path.samestat(self._root, self._folder.stat())):
            raise FileNotFoundError

    def _note_root(self, error: OSError) -> None:
        """Count each look that failed, and log the first of several."""
        self._telemetry.look_failed()
        if not self._unreadable:
            fields = {"folder": str(self._folder), "error": type(error).__name__}
            logger.error("refresh", extra={"fields": fields})
        self._unreadable = True

    def _begin_with(self, place: Place) -> None:
        """Take in what is at a place, patient with whoever is replacing it.

        Where that takes too long, or the folder has gone, it is left to the first look.

        Raises:
            RunFolderError: it cannot be trusted or served.
        """
        for _ in range(ATTEMPTS):
            before = fingerprint(place.path)
            try:
                self._take_in(place)
            except RunFolderError:
                if not _was_overtaken(place, before):
                    raise
            else:
                self._looks[place] = _Look(before)
                return
            time.sleep(PAUSE_SECONDS)

    def _look_at(self, place: Place) -> None:
        """Take in what is at a place, where it has changed or could not be read before."""
        look, before = self._looks.get(place), fingerprint(place.path)
        if look is not None and look.fingerprint == before and not look.may_pass:
            return
        try:
            self._take_in(place)
        except RunFolderError as error:
            if not _was_overtaken(place, before):
                self._note(place, before, error)
        else:
            self._looks[place] = _Look(before)

    def _take_in(self, place: Place) -> None:
        """List what is at a place; the newest versions and those in use are loaded before that."""
        started = time.monotonic()
        version, run = self._read(place)
        listed = self._catalog.get(place.name, ())
        if version in listed:
            return
        is_newest = all(place.number >= other.place.number for other in listed)
        if is_newest or self._memory.holds(place.name, place.version):
            loaded = self._prepare(version, run)
            if self._memory.holds(place.name) or self._memory.has_room(loaded):
                self._memory.put(loaded, time.monotonic() - started)
        self._list(version)

    def _load(self, place: Place) -> Loaded:
        started = time.monotonic()
        loaded = self._prepare(*self._read(place))
        self._memory.put(loaded, time.monotonic() - started)
        self._list(loaded.version)
        return loaded

    def _read(self, place: Place) -> tuple[Version, Run]:
        try:
            run = read_place(self._folder, place)
        except RunFolderError:
            raise
        except Exception as error:  # want of memory, say; no folder may end a look at the others
            raise RunFolderError(
                f"refusing {place.path}: it cannot be read ({type(error).__name__})"
            ) from error
        for known in self._catalog.get(place.name, ()):
            if known.place == place and known.hashes == run.hashes:
                return known, run
        return Version(
            place.name, place.version, place.path, run.card, run.label_names, run.hashes
        ), run

    def _prepare(self, version: Version, run: Run) -> Loaded:
        """Make it answer once, so that no request pays for that and no broken model is listed."""
        try:
            loaded = Loaded(version, run, self._backend(run))
            _warm_up(loaded)
        except Exception as error:
            kind = str(error) if isinstance(error, WorkerError) else type(error).__name__
            raise RunFolderError(f"refusing {version.path}: it cannot answer ({kind})") from error
        if loaded.memory_bytes > self._budget:
            raise RunFolderError(
                f"refusing {version.path}: it takes {loaded.memory_bytes} bytes of memory, "
                f"the budget is {self._budget}"
            )
        return loaded

    def _backend(self, run: Run) -> Backend:
        if self._workers is None:
            return make_backend(run, self._precision)
        return self._workers.backend(run, self._precision)

    def _list(self, version: Version) -> None:
        others = self._catalog.get(version.name, ())
        kept = [other for other in others if other.version != version.version]
        versions = sorted([*kept, version], key=lambda each: each.place.number)
        self._catalog = dict(sorted({**self._catalog, version.name: tuple(versions)}.items()))

    def _withdraw(self, found: Found) -> None:
        listed = [version for versions in self._catalog.values() for version in versions]
        gone = {version.place for version in listed} - {*found.places}
        missing = {place for place in gone if not found.hides(place)}
        for version in listed:
            if version.place in missing & self._missing:
                self._load_successor(version, missing)
                with self._loading:
                    self._unlist(version)
        self._missing = missing

    def _load_successor(self, version: Version, missing: set[Place]) -> None:
        """Have the next newest version ready where the newest one is about to go."""
        *older, newest = self._catalog[version.name]
        left = [other for other in older if other.place not in missing]
        if version is newest and left and self._memory.holds(version.name, version.version):
            with suppress(InputError):  # noted; the newest one goes in any case
                self.load(left[-1])

    def _unlist(self, version: Version) -> None:
        listed = self._catalog[version.name]
        if version not in listed:
            return  # a request has just loaded its successor: the folder is there again
        kept = tuple(other for other in listed if other is not version)
        catalog = {**self._catalog, version.name: kept}
        self._catalog = {name: versions for name, versions in catalog.items() if versions}
        self._memory.drop(version)

    def _note_unreadable(self, found: Found) -> None:
        for place, error in found.unreadable.items():
            refusal = RunFolderError(f"cannot read {printable(str(place.path))}: {error.strerror}")
            refusal.__cause__ = error
            self._note(place, error.errno, refusal)

    def _note(self, place: Place, before: Hashable, error: RunFolderError) -> None:
        """Log and count a failure, unless the folder has failed like this before."""
        look, cause = self._looks.get(place), error.__cause__
        # The text alone: the exception would hold on to everything that was read.
        self._looks[place] = _Look(before, str(error), _may_pass(cause))
        if look is not None and look.fingerprint == before and look.refusal is not None:
            return
        fields = {
            "model": place.label,
            "version": place.version,
            "folder": str(place.path),
            "error": type(cause or error).__name__,
        }
        logger.error("load", extra={"fields": fields})
        self._telemetry.load_failed(place.label)

    def _refuse_again(self, place: Place, now: Hashable) -> None:
        look = self._looks.get(place)
        if look and look.fingerprint == now and look.refusal is not None and not look.may_pass:
            raise RunFolderError(look.refusal)


@dataclass(frozen=True)
class _Look:
    """What was found at a place.

    Attributes:
        fingerprint: of the folder.
        refusal: why it was refused, if it was.
        may_pass: the same folder may be taken next time.
    """

    fingerprint: Hashable
    refusal: str | None = None
    may_pass: bool = False


class _Memory:
    """What is loaded, by model and version; the least recently used goes first.

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
        with self._lock:
            self._drop((version.name, version.version))

    def _drop(self, key: tuple[str, str]) -> None:
        if self._loaded.pop(key, None) is not None:
            self._telemetry.model_unloaded(*key)

    def _used(self) -> int:
        return sum(loaded.memory_bytes for loaded in self._loaded.values())


def _warm_up(loaded: Loaded) -> None:
    """Answer on the shortest and on the longest input.

    Raises:
        ArithmeticError: an answer is not finite.
    """
    run = loaded.run
    for words in (1, run.model.config.max_length):
        encodings = encode_texts(run, ["a " * words])
        probabilities = loaded.backend.classify([each.ids for each in encodings])
        if not np.isfinite(probabilities).all():
            raise ArithmeticError("a probability is not finite")


def _spellings(name: str) -> tuple[str, str]:
    """How a folder's name may be written; a caller's can be long, and is never normalised."""
    return unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)


def _was_overtaken(place: Place, before: Hashable) -> bool:
    """Whether somebody changes the folder just now, so that a refusal says nothing about it."""
    return before is None or fingerprint(place.path) != before


def _may_pass(cause: BaseException | None) -> bool:
    """Whether it was want of memory or a troubled disk that made a load fail, not the folder.

    A worker that is killed while it loads, which refuses, mostly wants memory.
    """
    if isinstance(cause, FileNotFoundError):
        return False
    return isinstance(cause, OSError | MemoryError | RefusedError)
