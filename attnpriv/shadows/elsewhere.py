"""Shadow models that other processes train, of this machine or of a Ray cluster."""

from __future__ import annotations

import io
import shutil
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np
from torch import Tensor

from attnpriv.audit.leakage.likelihood import Bools
from attnpriv.audit.statistics import Floats
from attnpriv.data.records import Dataset
from attnpriv.jobs import Told
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import FILES
from attnpriv.runs.packing import FolderOfRun
from attnpriv.shadows.making import Shadows
from attnpriv.shadows.recipe import recipe_of

LOG_ODDS, INSIDE = "log_odds", "inside"


@dataclass(frozen=True)
class Made:
    """A shadow model as it travels.

    Attributes:
        files: those of its run folder by name, without the manifest.
        log_odds: as ``Shadows.answers`` has them.
        inside: likewise.
    """

    files: Mapping[str, bytes]
    log_odds: Floats
    inside: Bools

    def to_bytes(self) -> bytes:
        """Itself in NumPy's npz format."""
        arrays: dict[str, Any] = {LOG_ODDS: self.log_odds, INSIDE: self.inside}
        arrays |= {name: np.frombuffer(content, np.uint8) for name, content in self.files.items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Made:
        """What ``to_bytes`` wrote."""
        with np.load(io.BytesIO(content)) as arrays:
            files = {name: arrays[name].tobytes() for name in FILES if name in arrays}
            return cls(files, arrays[LOG_ODDS], arrays[INSIDE])


@dataclass(frozen=True)
class ShadowJob:
    """What a process needs to train any shadow model of a run; a piece is its number.

    Attributes:
        run: whose training is imitated.
        encoder: as in ``recipe.recipe_of``.
        data: all rows.
        seed: of the coins.
        features: as in ``Shadows``.
        scratch: a folder for unfinished models; None makes one where the process runs.
        encoder_files: of the encoder's folder, for a machine that does not see it.
    """

    resumable = True
    run: FolderOfRun
    encoder: str | None
    data: Dataset
    seed: int
    features: Tensor | None
    scratch: Path | None
    encoder_files: Mapping[str, bytes] | None = field(default=None, repr=False)

    def packed(self) -> ShadowJob:
        """As ``jobs.Job.packed``."""
        files = None
        if self.encoder is not None:
            folder = Path(self.encoder)
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return replace(self, run=self.run.packed(), scratch=None, encoder_files=files)

    def begin(self) -> Callable[[int, Told], bytes]:
        """As ``jobs.Job.begin``."""
        place = Path(mkdtemp(prefix="attnpriv-", dir=self.scratch))
        # The shadows copy the run's tokeniser and begin with the encoder, so both stay there.
        run = self.run.unpacked(place).load()
        recipe = recipe_of(run, self._encoder_in(place))
        samples = run.modality.read(self.data.records)
        shadows = Shadows(recipe, self.data, samples, self.seed, self.features)
        weakref.finalize(shadows, shutil.rmtree, place, ignore_errors=True)

        def make(number: int, told: Told) -> bytes:
            with one_thread(), TemporaryDirectory(dir=place) as folder:
                out = Path(folder) / f"{number:04d}"
                shadows.train(number, out, told)
                files = {name: (out / name).read_bytes() for name in FILES if (out / name).exists()}
                return Made(files, *shadows.answers(number, out)).to_bytes()

        return make

    def _encoder_in(self, place: Path) -> str | None:
        """The encoder's folder, under its own name: models are known by it."""
        if self.encoder is None or self.encoder_files is None:
            return self.encoder
        folder = place / "encoder" / Path(self.encoder).resolve().name
        folder.mkdir(parents=True)
        for name, content in self.encoder_files.items():
            (folder / name).write_bytes(content)
        return str(folder)
