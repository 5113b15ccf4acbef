"""The canaries of a run: their coins and what the training showed of them, beside the run folder.

::

    runs/NAME/              the run folder: served, copied, passed on
    runs/.NAME.canaries     this file, which only its owner may read

An audit by canaries is worth something only against those who do not know the coins. So they are in
no run folder, and no manifest names them; the server passes over hidden names, and files that stand
where it expects folders.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from attnpriv.errors import InputError
from attnpriv.replacing import replace_file
from attnpriv.runs.folder import WEIGHTS, Run
from attnpriv.runs.parsing import read_fields

LARGEST = 256 * 2**20  # bytes; more is not read


@dataclass(frozen=True)
class GradientCanaries:
    """Canaries that are gradients; see ``privacy.canaries``.

    Attributes:
        coins: which of them were among the training records.
        scores: the log-likelihood ratio of each, by the noised sums of all steps.
    """

    coins: tuple[bool, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class TextCanaries:
    """Canaries that are records: made-up texts with random classes.

    Attributes:
        coins: which of them were among the training records.
        texts: all of them.
        labels: their class numbers.
    """

    coins: tuple[bool, ...]
    texts: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Canaries:
    """What is known of the canaries of one run.

    Attributes:
        weights: the SHA-256 of the run's weights.
        gradients: maybe none.
        texts: maybe none.

    Raises:
        InputError: the lists of one kind differ in length.
    """

    weights: str
    gradients: GradientCanaries
    texts: TextCanaries

    def __post_init__(self) -> None:
        for kind in (self.gradients, self.texts):
            if len({len(each) for each in vars(kind).values()}) != 1:
                raise InputError("expected one coin for each canary, and all that is known of it")


def canaries_path(run: Path) -> Path:
    """Where the canaries of a run folder are kept."""
    run = run.resolve()
    return run.parent / f".{run.name}.canaries"


def write_canaries(run: Path, canaries: Canaries) -> None:
    """Write the file of a run folder; it is on disk, for its owner only, when the call returns.

    Raises:
        OSError: it cannot be written.
    """
    path = canaries_path(run)
    path.unlink(missing_ok=True)  # a file that is replaced would keep its permissions
    replace_file(path, json.dumps(asdict(canaries), allow_nan=False).encode(), mode=0o600)


def read_canaries(run: Run) -> Canaries | None:
    """The canaries of a run; None where it has none, or where their file is not for us to read.

    Raises:
        InputError: the file holds something else, or is that of other weights.
    """
    if run.card.canaries is None:
        return None  # a file may be left from a run that had the name before
    path = canaries_path(run.path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST)
        canaries = Canaries(**read_fields(Canaries, json.loads(content)))
    except (FileNotFoundError, PermissionError):
        return None
    except (OSError, ValueError, RecursionError) as error:  # InputError is a ValueError
        raise InputError(f"cannot read the canaries {path}: {error}") from error
    if canaries.weights != run.hashes[WEIGHTS]:
        raise InputError(f"{path} holds the canaries of another run than {run.name}")
    return canaries
