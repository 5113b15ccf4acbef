"""The privacy ledger: what looked at the private data, and what ε that cost.

The file has one JSON object a line, in the order in which things happened. An entry either carries
the numbers from which its ε follows, or says that no ε covers it. Lines are only ever appended.
Each is on disk before the call returns, and before what it states is done, so that a crash can lose
work but never an expense. The steps of one training are cumulative: its last entry counts. A search
that releases nothing but its best run has one entry for everything it spent, on disk before the
release.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from attnpriv.config import Accountant, RunDistribution
from attnpriv.errors import InputError
from attnpriv.privacy.accounting import epsilon_spent
from attnpriv.privacy.selection import (
    RunCount,
    epsilon_of_selection,
    rdp_of_run,
)
from attnpriv.replacing import sync_folder


@dataclass(frozen=True)
class NoisedSteps:
    """A run of Poisson-subsampled Gaussian steps with one setting.

    The record from which ε is computed, apart from the accountant that computes it.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int
    max_grad_norm: float

    def epsilon(self, delta: float, accountant: Accountant) -> float:
        """The ε these steps have spent at ``delta``; see ``accounting.epsilon_spent``."""
        return epsilon_spent(self.noise_multiplier, delta, self.sample_rate, self.steps, accountant)


@dataclass(frozen=True)
class Selection:
    """A random number of runs, of which the best alone is released.

    The record from which ε is computed. It says nothing of the runs that were made, their number
    and their winner included: it was fixed before the first of them.

    Attributes:
        distribution: of the number of runs.
        mean_runs: their expected number.
        candidates: what a run with each of them spends; a run took one at random.
        score_noise: standard deviation of the noise on a run's number of correct predictions.
        validation_share: share of the rows that the runs were scored on.
        salt: of the rule by which they were chosen.
    """

    distribution: RunDistribution
    mean_runs: float
    candidates: tuple[NoisedSteps, ...]
    score_noise: float
    validation_share: float
    salt: str

    def epsilon(self, delta: float) -> float:
        """The ε of the whole search at ``delta``; see ``selection.epsilon_of_selection``."""
        schedules = [(c.noise_multiplier, c.sample_rate, c.steps) for c in self.candidates]
        runs = RunCount(self.mean_runs, self.distribution)
        return epsilon_of_selection(runs, rdp_of_run(schedules, self.score_noise), delta)


Record = TypeVar("Record")


class Ledger:
    """An append-only file of ledger entries.

    Args:
        path: the file; it is created with the first entry.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def record_steps(self, spent: NoisedSteps, delta: float, epsilon: float) -> None:
        """Append the noised steps of a training so far, those to come next among them."""
        self._append(
            {
                "entry": "noised_steps",
                "mechanism": "Poisson-subsampled Gaussian",
                **asdict(spent),
                "delta": delta,
                "epsilon": epsilon,
            }
        )

    def noised_steps(self) -> NoisedSteps | None:
        """The steps that the training has spent at most; None if it has not begun.

        Raises:
            InputError: a line is not an entry.
        """
        return self._last("noised_steps", _steps_of)

    def record_selection(self, selection: Selection, delta: float, epsilon: float) -> None:
        """Append a search, before its best run is released."""
        self._append(
            {
                "entry": "selection",
                "mechanism": "best of a random number of runs of Poisson-subsampled Gaussian steps",
                **asdict(selection),
                "delta": delta,
                "epsilon": epsilon,
            }
        )

    def selection(self) -> Selection | None:
        """The search that led to the model; None if there was none.

        Raises:
            InputError: a line is not an entry.
        """
        return self._last("selection", _selection_of)

    def record_not_covered(self, what: str) -> None:
        """Append something that looked at the private data and that no ε covers, but only once."""
        entry = {"entry": "not_covered", "what": what}
        if _line(entry) not in self._whole_lines().splitlines(keepends=True):
            self._append(entry)

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a+b") as file:
            # What a crash left of a line never took effect: the steps begin after it is on disk.
            file.truncate(len(self._whole_lines()))
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path.parent)

    def _last(self, kind: str, read: Callable[[dict[str, Any]], Record]) -> Record | None:
        found = None
        for line in self._whole_lines().splitlines():
            try:
                entry = json.loads(line)
                if entry["entry"] == kind:
                    found = read(entry)
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.path} is not a privacy ledger: {error}") from error
        return found

    def _whole_lines(self) -> bytes:
        """The file as far as its last line is whole."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        return content[: content.rfind(b"\n") + 1]


def _line(entry: dict[str, Any]) -> bytes:
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode()


def _steps_of(entry: dict[str, Any]) -> NoisedSteps:
    return NoisedSteps(**{field.name: entry[field.name] for field in fields(NoisedSteps)})


def _selection_of(entry: dict[str, Any]) -> Selection:
    values = {field.name: entry[field.name] for field in fields(Selection)}
    candidates = tuple(_steps_of(candidate) for candidate in values.pop("candidates"))
    return Selection(**values, candidates=candidates)
