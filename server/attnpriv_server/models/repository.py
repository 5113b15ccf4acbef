"""The models in a folder, watched while the server runs."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from attnpriv.errors import InputError, RunFolderError
from attnpriv_server.domain import Precision
from attnpriv_server.models.catalog import Catalog
from attnpriv_server.models.folders import Found, Place, find_places, fingerprint
from attnpriv_server.models.loading import Loader
from attnpriv_server.models.looks import Looks, was_overtaken
from attnpriv_server.models.memory import ModelMemory
from attnpriv_server.models.versions import Loaded, Version
from attnpriv_server.telemetry import Telemetry, log_defect
from attnpriv_server.workers import Workers

logger = logging.getLogger(__name__)

# A folder that is replaced while it is read is read again, this often and with this much patience.
ATTEMPTS, PAUSE_SECONDS = 5, 0.1


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
        self._telemetry = telemetry or Telemetry()
        budget = math.inf if memory_budget is None else memory_budget
        self._loader = Loader(folder, precision, budget, workers)
        self._memory = ModelMemory(budget, self._telemetry)
        # Held by whoever reads models, and changes the catalog and the looks: one at a time.
        self._loading = threading.Lock()
        self._catalog = Catalog()
        self._looks = Looks(self._telemetry)
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
            self._looks.refuse_unreadable(found)
            for place in found.places:
                self._begin_with(place)
        if not self._catalog.models():
            refusals = "".join(f"; {refusal}" for refusal in self._looks.refusals())
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
        """The versions that can be asked for, by model: names sorted, the oldest version first."""
        return self._catalog.models()

    def find(self, name: str, version: str | None = None) -> Version:
        """A version of a model; the newest where none is given.

        A name may be given with its accents composed or taken apart, as file systems and keyboards
        do either; a model that has exactly the name goes first.

        Raises:
            UnknownModelError: there is none.
        """
        return self._catalog.find(name, version)

    def loaded(self, version: Version) -> Loaded | None:
        """The loaded model of a version, if it is in memory. Never waits; counts as a use."""
        return self._memory.get(version)

    def load(self, version: Version) -> Loaded:
        """The loaded model of a version; it is loaded first where it is not in memory.

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
                self._looks.check(place, before)
                try:
                    return self._load(place)
                except RunFolderError as error:
                    refusal = error
                if not was_overtaken(place, before):
                    self._looks.refuse(place, before, refusal)
                    break
                time.sleep(PAUSE_SECONDS)
            raise refusal

    def refresh(self) -> None:
        """Take in what has changed in the folder; the watching thread calls this.

        A version is withdrawn once two looks in a row have missed it: replacing a folder takes two
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
            self._looks.refuse_unreadable(found)
            self._looks.keep({*found.places, *found.unreadable})

    def _watch(self) -> None:
        while not self._closing.wait(self._refresh_seconds):
            try:
                self.refresh()
            except Exception as error:
                log_defect(error)

    def _check_root(self, found: Found) -> None:
        """Tell a folder that was emptied from the empty mount point of a disk that is gone."""
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
                if not was_overtaken(place, before):
                    raise
            else:
                self._looks.accept(place, before)
                return
            time.sleep(PAUSE_SECONDS)

    def _look_at(self, place: Place) -> None:
        """Take in what is at a place, where it has changed or could not be read before."""
        before = fingerprint(place.path)
        if not self._looks.is_due(place, before):
            return
        try:
            self._take_in(place)
        except RunFolderError as error:
            if not was_overtaken(place, before):
                self._looks.refuse(place, before, error)
        else:
            self._looks.accept(place, before)

    def _take_in(self, place: Place) -> None:
        """List what is at a place; the newest versions and those in use are loaded before that."""
        started = time.monotonic()
        listed = self._catalog.versions(place.name)
        version, run = self._loader.read(place, listed)
        if version in listed:
            return
        is_newest = all(place.number >= other.place.number for other in listed)
        if is_newest or self._memory.holds(place.name, place.version):
            loaded = self._loader.prepare(version, run)
            if self._memory.holds(place.name) or self._memory.has_room(loaded):
                self._memory.put(loaded, time.monotonic() - started)
        self._catalog.add(version)

    def _load(self, place: Place) -> Loaded:
        started = time.monotonic()
        known = self._catalog.versions(place.name)
        loaded = self._loader.prepare(*self._loader.read(place, known))
        self._memory.put(loaded, time.monotonic() - started)
        self._catalog.add(loaded.version)
        return loaded

    def _withdraw(self, found: Found) -> None:
        listed = [version for versions in self.models().values() for version in versions]
        gone = {version.place for version in listed} - {*found.places}
        missing = {place for place in gone if not found.hides(place)}
        for version in listed:
            if version.place in missing & self._missing:
                self._load_successor(version, missing)
                with self._loading:
                    # Unless a request has just loaded its successor: the folder is there again.
                    if self._catalog.remove(version):
                        self._memory.drop(version)
        self._missing = missing

    def _load_successor(self, version: Version, missing: set[Place]) -> None:
        """Load the next newest version where the newest one is about to be withdrawn."""
        *older, newest = self._catalog.versions(version.name)
        left = [other for other in older if other.place not in missing]
        if version is newest and left and self._memory.holds(version.name, version.version):
            with suppress(InputError):  # noted; the newest one goes in any case
                self.load(left[-1])
