"""A version of a model, before and after it was loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from attnpriv.errors import InputError
from attnpriv.runs.card import ModelCard
from attnpriv.runs.folder import Run
from attnpriv_server.backend import Backend
from attnpriv_server.models.folders import Place


class UnknownModelError(InputError):
    """There is no such model, or no such version of it."""


@dataclass(frozen=True, eq=False)
class Version:
    """A version of a model, with what is known of it without its weights.

    Attributes:
        name: of the model: that of its folder.
        version: a number from 1 on.
        path: the run folder.
        card: the model card, under this name.
        label_names: the K classes.
        hashes: the SHA-256 of each of its files. Another content is another object of this class.
        pixels: height, width and channels of the images that it reads; None for a model of texts.
    """

    name: str
    version: str
    path: Path
    card: ModelCard
    label_names: tuple[str, ...]
    hashes: Mapping[str, str]
    pixels: tuple[int, int, int] | None = None

    @property
    def place(self) -> Place:
        """Where it is on disk."""
        return Place(self.name, self.version, self.path)


@dataclass(frozen=True, eq=False)
class Loaded:
    """A version that is ready to answer; whoever holds it may finish with it.

    Policies, labels and tokens of an answer have to be those of the object that computes it: the
    folder may have been replaced since its version was looked up.
    """

    version: Version
    run: Run
    backend: Backend

    @property
    def name(self) -> str:
        """Of the model."""
        return self.version.name

    @cached_property
    def memory_bytes(self) -> int:
        """Of the run's weights and of what the backend holds besides."""
        weights = self.run.model.state_dict().values()
        return sum(int(tensor.nbytes) for tensor in weights) + self.backend.memory_bytes
