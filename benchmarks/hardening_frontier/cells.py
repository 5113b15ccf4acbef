"""What is to be measured, in which order, and the file that keeps what has been."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from benchmarks.hardening_frontier.points import Point

REGIMES = ("frozen", "tuned", "distilled", "scratch")
FIELDS = ("regime", "dataset", "point", "private", "seed")


@dataclass(frozen=True)
class Cell:
    """One training and its measures."""

    regime: str
    dataset: str
    point: Point
    private: bool
    seed: int

    @property
    def key(self) -> tuple[str, str, str, bool, int]:
        """The values of ``FIELDS``."""
        return self.regime, self.dataset, self.point.name, self.private, self.seed

    def __str__(self) -> str:
        privacy = "private" if self.private else "not private"
        return f"{self.regime} {self.dataset} {self.point.name} {privacy} seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Which cells are wanted."""

    regimes: Sequence[str]
    datasets: Sequence[str]
    points: Sequence[Point]
    privacy: Sequence[bool]
    seeds: Sequence[int]

    def cells(self) -> Iterator[Cell]:
        """All of them, the most telling first."""
        for regime in self.regimes:
            yield from self._frozen() if regime == "frozen" else self._trained(regime)

    def _frozen(self) -> Iterator[Cell]:
        """Point and data set vary slowest, so that features are computed once."""
        for point, dataset, private, seed in product(
            self.points, self.datasets, self.privacy, self.seeds
        ):
            yield Cell("frozen", dataset, point, private, seed)

    def _trained(self, regime: str) -> Iterator[Cell]:
        """A whole frontier of one seed before the next, so that a cut run has paired points."""
        for private, seed, dataset, point in product(
            self.privacy, self.seeds, self.datasets, self.points
        ):
            if regime == "scratch" or not (private or dataset == "tickets"):
                yield Cell(regime, dataset, point, private, seed)


@dataclass
class Results:
    """The measured cells, one JSON object a line in a file that only grows."""

    path: Path
    records: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Results:
        """What the file holds, of a cell measured twice the later; nothing where there is no file.

        Raises:
            InputError: the file cannot be read, or a line is no record.
        """
        if not path.exists():
            return cls(path)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            records = [json.loads(line) for line in lines]
            for number, record in enumerate(records, start=1):
                if not (isinstance(record, dict) and {*FIELDS, "utility"} <= set(record)):
                    raise InputError(f"{path}: line {number} is no record of a cell")
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the results {path}: {error}") from error
        return cls(path, list({_key(record): record for record in records}.values()))

    def done(self) -> set[tuple[Any, ...]]:
        """The keys of the measured cells."""
        return {_key(record) for record in self.records}

    def add(self, cell: Cell, measures: dict[str, Any]) -> None:
        """Append one cell."""
        record = {**dict(zip(FIELDS, cell.key, strict=True)), **measures}
        self.records.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(record[name] for name in FIELDS)
