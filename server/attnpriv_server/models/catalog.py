"""Which models and versions are listed, and under which names they are found."""

from __future__ import annotations

import unicodedata

from attnpriv_server.models.versions import UnknownModelError, Version


class Catalog:
    """The listed versions of each model.

    Reading needs no lock: the table is replaced, never changed. Only one thread at a time may add
    and remove.
    """

    def __init__(self) -> None:
        self._models: dict[str, tuple[Version, ...]] = {}

    def models(self) -> dict[str, tuple[Version, ...]]:
        """All of them, by name, sorted, the oldest version first."""
        return dict(self._models)

    def versions(self, name: str) -> tuple[Version, ...]:
        """Those of a model, the oldest first; none where it is not listed."""
        return self._models.get(name, ())

    def find(self, name: str, version: str | None = None) -> Version:
        """A version of a model; the newest where none is given.

        A name may be given with its accents composed or taken apart, as file systems and keyboards
        do either; a model that has exactly the name goes first.

        Raises:
            UnknownModelError: there is none.
        """
        models = self._models
        if name not in models:
            name = next((other for other in models if name in _spellings(other)), name)
        for found in reversed(models.get(name, ())):
            if version in (None, found.version):
                return found
        raise UnknownModelError("expected a model and a version that are served")

    def add(self, version: Version) -> None:
        """List a version, in place of what had its number."""
        others = self.versions(version.name)
        kept = [other for other in others if other.version != version.version]
        versions = sorted([*kept, version], key=lambda each: each.place.number)
        self._models = dict(sorted({**self._models, version.name: tuple(versions)}.items()))

    def remove(self, version: Version) -> bool:
        """Take a version off the list; whether it was still on it, and not another content."""
        listed = self.versions(version.name)
        if version not in listed:
            return False
        kept = tuple(other for other in listed if other is not version)
        models = {**self._models, version.name: kept}
        self._models = {name: versions for name, versions in models.items() if versions}
        return True


def _spellings(name: str) -> tuple[str, str]:
    """How a folder's name may be written; a caller's can be long, and is never normalised."""
    return unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)
