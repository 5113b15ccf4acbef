"""What an output folder has released under ε, so that the same figures get their noise once.

::

    OUT.private/            beside the output folder OUT, readable by its owner only
        releases.json       each audit that was paid for, with its noised sums once they are there
        .audit-work/        exact pieces of the audit that is under way; gone when it is finished

Noise that is drawn twice for the same figures averages out, so an audit that is repeated gets the
sums that are here. What differs in its runs, records, options or code is another audit, and is
added to the total. It is paid for before its noise is drawn, and nothing is ever paid back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.replacing import replace_file

NAME, FORMAT = "releases.json", 1

NoisedSums = dict[str, list[int]]


@dataclass(frozen=True)
class Release:
    """One audit that was paid for.

    Attributes:
        audit: the SHA-256 of all that it was made from.
        micro_epsilon: its ε in millionths.
        delta: its δ.
        noised: what was released; None if the process ended between the payment and that.
    """

    audit: str
    micro_epsilon: int
    delta: float
    noised: NoisedSums | None


def private_folder(out: Path) -> Path:
    """Where the secrets of an audit into ``out`` are; never in it, since it is for others."""
    resolved = out.resolve()
    return resolved.with_name(f"{resolved.name}.private")


def audit_id(identity: Mapping[str, Any]) -> str:
    """The SHA-256 of what an audit is made from."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


class Releases:
    """The releases of one output folder.

    Args:
        folder: the private one.

    Raises:
        InputError: they cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._releases = _read(self._path)

    def released(self, audit: str) -> NoisedSums | None:
        """The noised sums of this very audit, if it was finished."""
        found = (each.noised for each in self._releases if each.audit == audit)
        return next((noised for noised in found if noised is not None), None)

    @property
    def total(self) -> tuple[int, int, float]:
        """How many audits were paid for, the sum of their ε in millionths, and that of their δ."""
        epsilons = (each.micro_epsilon for each in self._releases)
        return len(self._releases), sum(epsilons), sum(each.delta for each in self._releases)

    def pay(self, audit: str, micro_epsilon: int, delta: float) -> None:
        """Write down the price before any noise is drawn.

        Raises:
            InputError: it cannot be written.
        """
        self._write([*self._releases, Release(audit, micro_epsilon, delta, None)])

    def keep(self, noised: Mapping[str, Sequence[int]]) -> None:
        """Keep what the payment before was for.

        Raises:
            InputError: it cannot be written.
        """
        *others, last = self._releases
        sums = {name: list(values) for name, values in noised.items()}
        self._write([*others, Release(last.audit, last.micro_epsilon, last.delta, sums)])

    def _write(self, releases: list[Release]) -> None:
        content = {"format": FORMAT, "releases": [asdict(each) for each in releases]}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(content).encode(), mode=0o600)
        except OSError as error:
            raise InputError(f"cannot write {self._path}: {error.strerror}") from error
        self._releases = releases


def _read(path: Path) -> list[Release]:
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != FORMAT:
            raise ValueError
        return [Release(**each) for each in content["releases"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"cannot read {path}, which says what was released before; without it, noise that "
            "was paid for would be drawn again"
        ) from error
