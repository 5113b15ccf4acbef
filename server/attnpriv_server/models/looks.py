"""What earlier looks at run folders found, so that none is read twice for nothing."""

from __future__ import annotations

import logging
from collections.abc import Collection, Hashable
from dataclasses import dataclass

from attnpriv.errors import RunFolderError
from attnpriv_server.domain import RefusedError
from attnpriv_server.models.folders import Found, Place, fingerprint, printable
from attnpriv_server.telemetry import Telemetry

logger = logging.getLogger(__name__)


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


class Looks:
    """The last look at each place. Only one thread at a time may use it.

    Args:
        telemetry: told of folders that are refused.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._looks: dict[Place, _Look] = {}

    def is_due(self, place: Place, now: Hashable) -> bool:
        """Whether the folder has changed since, or what was wrong with it may have passed."""
        look = self._looks.get(place)
        return look is None or look.fingerprint != now or look.may_pass

    def accept(self, place: Place, before: Hashable) -> None:
        """Remember that what is at a place was taken in, with its fingerprint from before that."""
        self._looks[place] = _Look(before)

    def refuse(self, place: Place, before: Hashable, error: RunFolderError) -> None:
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

    def refuse_unreadable(self, found: Found) -> None:
        """The same for all folders that could not be looked into."""
        for place, error in found.unreadable.items():
            refusal = RunFolderError(f"cannot read {printable(str(place.path))}: {error.strerror}")
            refusal.__cause__ = error
            self.refuse(place, error.errno, refusal)

    def check(self, place: Place, now: Hashable) -> None:
        """Refuse a folder again that was refused and has not changed.

        Raises:
            RunFolderError: why it was refused.
        """
        look = self._looks.get(place)
        if look and look.refusal is not None and not self.is_due(place, now):
            raise RunFolderError(look.refusal)

    def keep(self, places: Collection[Place]) -> None:
        """Forget all other places."""
        self._looks = {place: look for place, look in self._looks.items() if place in places}

    def refusals(self) -> list[str]:
        """Why places are refused."""
        return [look.refusal for look in self._looks.values() if look.refusal is not None]


def was_overtaken(place: Place, before: Hashable) -> bool:
    """Whether somebody changes the folder just now, so that a refusal says nothing about it."""
    return before is None or fingerprint(place.path) != before


def _may_pass(cause: BaseException | None) -> bool:
    """Whether a load failed for want of memory or by a troubled disk, and not by the folder.

    A worker that is killed while it loads raises RefusedError, and mostly it lacked memory.
    """
    if isinstance(cause, FileNotFoundError):
        return False
    return isinstance(cause, OSError | MemoryError | RefusedError)
