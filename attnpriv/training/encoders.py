"""Encoders that can be bounded, in this package's own blocks or in ``transformers``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from attnpriv.attention.bound import Bound
from attnpriv.attention.drop_in.families import ENCODERS
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.models.layouts import FAMILIES, to_ours, to_theirs
from attnpriv.models.pretrained import (
    Encoder,
    classifier_of,
    encoder_folder,
    open_encoder,
    read_config,
)
from attnpriv.models.text import TextClassifier
from attnpriv.training.bounding import Layered


class Copy(Layered, Protocol):
    """An encoder that learns, and can be written."""

    @property
    def vocab_size(self) -> int:
        """Every token id is below it."""

    def to_file(self) -> dict[str, Tensor]:
        """The file of the encoder with this copy's weights in it, in the file's dtypes."""

    def from_file(self, file: dict[str, Tensor]) -> None:
        """Take the weights of such a file."""


@dataclass(frozen=True)
class Source:
    """An encoder of which a bounded copy can be made.

    Attributes:
        name: ``minilm``, ``minilm-bounded``, or that of its folder.
        folder: in Hugging Face layout.
        values: its ``config.json``.
        bound: how its attention is bounded; None if it was not taught under a bound.
        copy: makes a copy with that attention, whose weights are learned or not.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    bound: Bound | None
    copy: Callable[[AttentionConfig, bool], Copy]


class OwnLayers:
    """An encoder in this package's own blocks, see ``bounding.Layered``.

    Args:
        model: its word embeddings and head are left alone.
        learns: whether its other weights are learned.
    """

    def __init__(self, model: TextClassifier, learns: bool) -> None:
        self.module = model
        self.pooled = model.config.pooled_layers
        model.requires_grad_(learns)
        model.head.requires_grad_(False)
        model.words.requires_grad_(False)

    def states(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """Hidden states after every layer."""
        x, states = self.module.embed(ids), []
        for block in self.module.layers:
            x, _ = block(x, mask)
            states.append(x)
        return states


class OwnCopy(OwnLayers):
    """A copy of an encoder in this package's own blocks."""

    def __init__(self, encoder: Encoder, attention: AttentionConfig, learns: bool) -> None:
        super().__init__(classifier_of(encoder, 2, attention, "layers"), learns)
        self._encoder = encoder
        self.vocab_size = self.module.config.vocab_size

    def to_file(self) -> dict[str, Tensor]:
        """The encoder's file with this copy's weights in it."""
        model, encoder = self.module, self._encoder
        return to_theirs(model.state_dict(), encoder.state, model.config, encoder.family)

    def from_file(self, file: dict[str, Tensor]) -> None:
        """Take the weights of such a file."""
        ours = to_ours(file, self.module.config, self._encoder.family)
        self.module.load_state_dict({**self.module.state_dict(), **ours})


def open_source(encoder: str) -> Source:
    """Open an encoder to copy it: ``minilm``, ``minilm-bounded`` or a folder.

    Families that this package's own blocks load come in these, others in ``transformers``.

    Raises:
        InputError: there is no such encoder, it cannot be bounded, or its files cannot be read.
    """
    folder = encoder_folder(encoder)
    values = read_config(folder)
    kind = values.get("model_type")
    if kind in FAMILIES:
        read = open_encoder(encoder)
        return Source(read.name, folder, read.values, read.bound, partial(OwnCopy, read))
    if kind in ENCODERS:
        # Nothing else here needs transformers, which is no dependency.
        from attnpriv.attention.drop_in.encoders import TransformersEncoder

        made = partial(TransformersEncoder, folder)
        return Source(folder.resolve().name, folder, values, Bound.from_config(values), made)
    raise InputError(
        f"{folder / 'config.json'}: attnpriv encoder bound cannot bound model_type {kind!r}; it "
        f"bounds encoders that read a text in both directions: "
        f"{', '.join(sorted([*FAMILIES, *ENCODERS]))}"
    )
