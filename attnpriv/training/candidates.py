"""The candidates of a search over hyper-parameters: a default grid, or those of a TOML file.

::

    [grid]                              # every combination of these
    head_learning_rate = [0.05, 0.15]
    steps = [50, 200]

    [[candidate]]                       # and each of these
    trainable = "lora:4"
    learning_rate = 1e-3

What a candidate does not name is what the search has in common. Which candidates there are must not
depend on the data: write the file before anyone looks at it.
"""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.config import Clipping, PrivacyConfig, TrainConfig
from attnpriv.errors import InputError

MOST = 1000
LEARNING_RATES = {"head_learning_rate": (0.05, 0.15, 0.5), "learning_rate": (3e-4, 1e-3, 3e-3)}
STEPS = (50, 200)
KINDS: dict[str, type] = {
    "trainable": str,
    "steps": int,
    "batch_size": int,
    "learning_rate": float,
    "head_learning_rate": float,
    "ema_decay": float,
    "warmup": float,
    "decay": str,
    "max_grad_norm": float,
    "clipping": str,
}


@dataclass(frozen=True)
class Candidate:
    """One setting that a run of a search may have.

    Attributes:
        config: how the run is fitted; its ``train_size`` is not used.
        max_grad_norm: the clipping norm C of this run; None takes the search's.
        clipping: as in ``PrivacyConfig``; None takes the search's.
    """

    config: TrainConfig
    max_grad_norm: float | None = None
    clipping: Clipping | None = None

    def privacy(self, common: PrivacyConfig) -> PrivacyConfig:
        """The search's privacy with what this candidate has of its own."""
        norm, clipping = self.max_grad_norm, self.clipping
        return replace(
            common,
            max_grad_norm=common.max_grad_norm if norm is None else norm,
            clipping=common.clipping if clipping is None else clipping,
        )


def default_candidates(common: TrainConfig) -> list[Candidate]:
    """Three learning rates of the trained part, each with two numbers of steps."""
    name = "head_learning_rate" if common.trainable == "head" else "learning_rate"
    settings: list[dict[str, Any]] = [
        {name: rate, "steps": steps} for rate in LEARNING_RATES[name] for steps in STEPS
    ]
    return [Candidate(replace(common, **setting)) for setting in settings]


def load_candidates(path: Path, common: TrainConfig) -> list[Candidate]:
    """Read a file of candidates: the grid's first, in the order of its names.

    Args:
        path: the TOML file.
        common: what a candidate has where the file does not say otherwise.

    Raises:
        InputError: the file cannot be read or is not TOML, has an unknown name or a value of the
            wrong kind or out of range, or gives no candidate or more than 1,000.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # long numbers and deep nesting too
        raise InputError(f"cannot read candidates {path}: {error}") from error
    try:
        return [_candidate(settings, common) for settings in _settings(content)]
    except (InputError, OverflowError) as error:
        raise InputError(f"candidates {path}: {error}") from error


def _settings(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the file says of each candidate."""
    _check_names(content, ("grid", "candidate"))
    grid, tables = content.get("grid", {}), content.get("candidate", [])
    if not isinstance(grid, dict):
        raise InputError(f"expected grid as a table, [grid], got {grid!r}")
    if not (isinstance(tables, list) and all(isinstance(table, dict) for table in tables)):
        raise InputError("expected candidate as a list of tables, [[candidate]]")
    for name, values in grid.items():
        if not (isinstance(values, list) and values):
            raise InputError(f"expected grid {name} as a list of one value or more, got {values!r}")
    combinations = math.prod(map(len, grid.values())) if grid else 0
    if not 1 <= combinations + len(tables) <= MOST:
        raise InputError(
            f"expected 1 to {MOST} candidates in [grid] and [[candidate]], "
            f"got {combinations + len(tables)}"
        )
    if grid:
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))
    yield from tables


def _candidate(settings: dict[str, Any], common: TrainConfig) -> Candidate:
    _check_names(settings, KINDS)
    for name, value in settings.items():
        kinds = (int, float) if KINDS[name] is float else (KINDS[name],)
        if type(value) not in kinds:
            raise InputError(f"expected {name} as {KINDS[name].__name__}, got {value!r}")
    own = {name: settings[name] for name in ("max_grad_norm", "clipping") if name in settings}
    fitting = {name: value for name, value in settings.items() if name not in own}
    candidate = Candidate(replace(common, **fitting), **own)
    candidate.privacy(PrivacyConfig(epsilon=1.0))  # refuses what is out of range
    return candidate


def _check_names(given: dict[str, Any], known: Sequence[str] | dict[str, type]) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"unknown {name!r}, expected {', '.join(known)}")
