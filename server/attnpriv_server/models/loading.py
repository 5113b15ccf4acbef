"""How a run folder becomes a model that has answered once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from attnpriv.errors import RunFolderError
from attnpriv.models.shapes import Shape
from attnpriv.runs.folder import Run
from attnpriv_server.backend import Backend, make_backend
from attnpriv_server.domain import Precision
from attnpriv_server.models.folders import Place, read_place
from attnpriv_server.models.versions import Loaded, Version
from attnpriv_server.workers import WorkerError, Workers


class Loader:
    """Reads versions and has them ready to answer.

    Args:
        folder: of run folders; nothing outside of it is read.
        precision: of the backends.
        budget: bytes of memory that a model may take.
        workers: compute predictions; None has this process do it.
    """

    def __init__(
        self, folder: Path, precision: Precision, budget: float, workers: Workers | None
    ) -> None:
        self._folder = folder
        self._precision = precision
        self._budget = budget
        self._workers = workers

    def read(self, place: Place, known: Iterable[Version]) -> tuple[Version, Run]:
        """Verify and read what is at a place.

        Args:
            place: of the run folder.
            known: versions of the model. Where one of them has the same content, it is returned.

        Raises:
            RunFolderError: it cannot be trusted or read.
        """
        try:
            run = read_place(self._folder, place)
        except RunFolderError:
            raise
        except Exception as error:  # want of memory, say; no folder may end a look at the others
            raise RunFolderError(
                f"refusing {place.path}: it cannot be read ({type(error).__name__})"
            ) from error
        for each in known:
            if each.place == place and each.hashes == run.hashes:
                return each, run
        return Version(
            place.name,
            place.version,
            place.path,
            run.card,
            run.label_names,
            run.hashes,
            run.model.config.pixels,
        ), run

    def prepare(self, version: Version, run: Run) -> Loaded:
        """Make it answer once, so that no request pays for that and no broken model is listed.

        Raises:
            RunFolderError: it cannot answer, or is larger than the budget.
        """
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


def _warm_up(loaded: Loaded) -> None:
    """Answer on the shortest and on the longest input.

    Raises:
        ArithmeticError: an answer is not finite.
    """
    for record in _records(loaded.run.model.config):
        samples = loaded.run.modality.read([record])
        probabilities = loaded.backend.classify([each.values for each in samples])
        if not np.isfinite(probabilities).all():
            raise ArithmeticError("a probability is not finite")


def _records(config: Shape) -> list[Any]:
    if config.pixels is not None:
        return [np.zeros(config.pixels, np.uint8)]
    return ["a ", "a " * config.max_length]
