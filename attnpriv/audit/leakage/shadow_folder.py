"""The folder of shadow models: what they say about every record, and which ones they saw.

::

    FOLDER/                             readable by its owner only
        settings.json                   whose shadows these are, and on which data
        runs/0000 ...                   a run folder for each model
        answers/0000.safetensors ...    its log-odds of the true label of every row of the data, and
                                        whether it was trained on the row

A model is finished when its answers are there. No text is in the folder, but it is as private as
the data: the bits say which records stand in which training, and the log-odds are exact functions
of the records.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors import numpy as arrays

from attnpriv.audit.leakage.likelihood import Bools, Confidences
from attnpriv.audit.statistics import Floats
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.replacing import replace_file
from attnpriv.shadow_answers import (
    FORMAT,
    INSIDE,
    LOG_ODDS,
    RUNS,
    SETTINGS,
    answers_path,
    not_finished,
)


@dataclass(frozen=True)
class Settings:
    """What makes a folder these shadows and no others.

    Attributes:
        like: the name of the run whose training is imitated.
        sha256: of the files that make this run, by their names.
        data: fingerprint of the data.
        models: how many shadow models there are when all are finished.
        seed: of the coins that cut the data for each.
        format: of the folder.
    """

    like: str
    sha256: dict[str, str]
    data: str
    models: int
    seed: int
    format: int = FORMAT


@dataclass(frozen=True)
class ShadowModels:
    """What the finished shadow models of a run say about all rows of its data.

    Attributes:
        settings: whose they are.
        log_odds: of the true label, [models, rows].
        inside: whether each was trained on each row, [models, rows].
        sha256: over all answers.
    """

    settings: Settings
    log_odds: Floats
    inside: Bools
    sha256: str

    def are_of(self, hashes: Mapping[str, str]) -> bool:
        """Whether they imitate the run with these files."""
        return all(hashes.get(name) == value for name, value in self.settings.sha256.items())

    def confidences(self, target: Floats, rows: NDArray[np.int64]) -> Confidences:
        """What a target and they say about some rows."""
        return Confidences(target, self.log_odds[:, rows], self.inside[:, rows])


def run_path(folder: Path, number: int) -> Path:
    """The run folder of a model."""
    return folder / RUNS / f"{number:04d}"


def write_settings(folder: Path, settings: Settings) -> None:
    """Write down whose shadows will be in a folder."""
    content = f"{json.dumps(asdict(settings), indent=2)}\n"
    replace_file(folder / SETTINGS, content.encode(), mode=0o600)


def read_settings(folder: Path) -> Settings:
    """Whose shadows are in a folder.

    Raises:
        InputError: it is no folder of shadow models, or one of another version.
    """
    path = folder / SETTINGS
    try:
        plain: dict[str, Any] = json.loads(path.read_bytes())
        settings: Settings = TypeAdapter(Settings).validate_python(plain)
    except (OSError, ValueError, ValidationError, RecursionError) as error:
        raise InputError(
            f"expected a folder of attnpriv shadows, but {path} cannot be read as its settings"
        ) from error
    if settings.format != FORMAT:
        raise InputError(f"{path}: expected format {FORMAT}, got {settings.format}")
    return settings


def write_answers(folder: Path, number: int, log_odds: Floats, inside: Bools) -> None:
    """Write what a model says about every row, which finishes it."""
    content = arrays.save({LOG_ODDS: log_odds, INSIDE: inside})
    replace_file(answers_path(folder, number), content, mode=0o600)


def read_shadows(folder: Path) -> ShadowModels:
    """What the shadow models in a folder say; none of them is loaded.

    Raises:
        InputError: it is no folder of shadow models, not all of them are finished, or a file is
            damaged.
    """
    settings = read_settings(folder)
    paths = [answers_path(folder, number) for number in range(settings.models)]
    if missing := sum(not path.exists() for path in paths):
        raise not_finished(folder, missing, settings.models)
    digest = hashlib.sha256()
    log_odds, inside = zip(*(_read_answers(path, digest) for path in paths), strict=True)
    if len({each.shape for each in (*log_odds, *inside)}) != 1:
        raise InputError(f"the answers in {folder} are not all about the same rows")
    return ShadowModels(settings, np.stack(log_odds), np.stack(inside), digest.hexdigest())


def match_shadows(
    runs: Sequence[Mapping[str, str]], data: Dataset, shadows: Sequence[ShadowModels]
) -> list[ShadowModels | None]:
    """For each run its shadow models, or None.

    Args:
        runs: the SHA-256 of the files of each.
        data: that is audited.
        shadows: in any order.

    Raises:
        InputError: some are of other data or of another run, or two are of one run.
    """
    found: list[ShadowModels | None] = [None] * len(runs)
    for each in shadows:
        like = each.settings.like
        if each.settings.data != data.fingerprint() or each.inside.shape[1] != len(data):
            raise InputError(
                f"expected shadow models trained on {data.name}, got those of {like}, which were "
                "trained on other data"
            )
        imitated = [number for number, hashes in enumerate(runs) if each.are_of(hashes)]
        if not imitated:
            raise InputError(
                f"expected shadow models of an audited run, got those of a run called {like} with "
                "other weights or another shape"
            )
        if found[imitated[0]] is not None:
            raise InputError(f"expected one folder of shadow models of {like}, got two")
        for number in imitated:
            found[number] = each
    return found


def _read_answers(path: Path, digest: Any) -> tuple[Floats, Bools]:
    try:
        content = path.read_bytes()
        found = arrays.load(content)
        log_odds, inside = found[LOG_ODDS], found[INSIDE]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"cannot read the answers {path}: {error}") from error
    if log_odds.dtype != np.float64 or inside.dtype != np.bool_ or log_odds.ndim != 1:
        raise InputError(f"{path} does not hold the answers of a shadow model")
    digest.update(content)
    return log_odds, inside
