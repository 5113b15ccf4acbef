"""The embedded example: what everything that explains, attacks or measures a model works on.

A model reads positions: the tokens of a text, and whatever the model adds to them. Each position is
embedded by itself. So replacing an embedding by the baseline's is the same, to the bit, as
replacing what stands there by padding, and no measure needs to know what a token is.

Shapes: B batch, L layers, H heads, T positions, D model width, K outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Place = tuple[int, ...]
"""Where a position stands in its record: in a text, the characters from start up to end; in an
image, the pixels from left and top up to right and bottom."""

MapKind = Literal["self", "spatial"]
"""What an attention map relates: ``self``, every position of the input to every other; ``spatial``,
a layer to each position, which it weighs by a gate of its own."""


class Sample(Protocol):
    """What a model reads of one record, not filled up."""

    @property
    def values(self) -> Any:
        """What stands at each position: of a text, its T ids; of an image, its patches [T, P]."""

    @property
    def places(self) -> Sequence[Place | None]:
        """Where each position stands in the record; None for those that the model added."""

    @property
    def size(self) -> int:
        """How many positions there are: what queues and micro-batches count."""

    @property
    def extents(self) -> Sequence[int]:
        """How large each place is, those that the model added left out: characters, or pixels."""

    def marks(self, regions: Iterable[Any]) -> NDArray[np.bool_]:
        """Which positions overlap one of the given parts of the record."""


Record = TypeVar("Record", contravariant=True)
Read = TypeVar("Read", bound=Sample)


class Modality(Protocol[Record, Read]):
    """How one model reads one kind of record; ``attnpriv.data.modalities`` has them all."""

    def read(self, records: Sequence[Record], /) -> list[Read]:
        """What the model sees of each record, in their order."""

    def collate(self, samples: Sequence[Read], /) -> Inputs:
        """Samples in one batch; the longest of them decides T."""


@dataclass(frozen=True)
class Inputs:
    """B records as a model takes them, filled up to one length.

    Attributes:
        values: what stands at each position; of texts, token ids [B, T]; of images, the pixels of
            patches [B, T, P].
        blank: the same with padding at every position, or black pixels.
        mask: True where a position is, at the beginning of each row, [B, T].
        content: True where a position has a place in its record, [B, T]: neither padding nor one
            that the model added.
    """

    values: Tensor
    blank: Tensor
    mask: Tensor
    content: Tensor


@dataclass(frozen=True)
class AttentionMap:
    """The attention weights of one layer.

    Attributes:
        kind: what they relate. Of ``attnpriv.guarantees``, ``gate_bounds`` and ``gate_lift_bound``
            are about ``spatial``, all other bounds about ``self``.
        weights: of ``self``, [B, H, T, T], queries before keys; of ``spatial``, gates [B, T].
    """

    kind: MapKind
    weights: Tensor


@dataclass(frozen=True)
class Pass:
    """What a model made of its input.

    Attributes:
        outputs: what the task reads; of a classifier, class logits [B, K].
        features: what the head saw of each record, [B, F].
        maps: of every layer, first layer first; empty unless they were asked for.
    """

    outputs: Tensor
    features: Tensor
    maps: tuple[AttentionMap, ...] = ()

    def self_attention(self) -> list[Tensor]:
        """The weights of the maps between positions, L times [B, H, T, T]."""
        return self._of("self")

    def spatial_gates(self) -> list[Tensor]:
        """The gates of positions, first layer first, each [B, T]."""
        return self._of("spatial")

    def _of(self, kind: MapKind) -> list[Tensor]:
        return [each.weights for each in self.maps if each.kind == kind]


class AttentionModel(Protocol):
    """A model whose answers and attention can be computed from embedded positions."""

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers between embedding and pooling; all attention is in there."""

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Layers L and heads H of its self-attention."""

    @property
    def gated_layers(self) -> int:
        """How many layers weigh positions by spatial gates."""

    def embed(self, values: Tensor, /) -> Tensor:
        """The embedding [B, T, D] of what stands at each position, each by itself."""

    def run(self, x: Tensor, mask: Tensor, need_maps: bool = False) -> Pass:
        """Compute the answers to embedded positions x [B, T, D] under a mask [B, T]."""


@dataclass(frozen=True)
class Embedded:
    """B embedded examples, and what each of their positions is replaced by.

    Attributes:
        x: embeddings [B, T, D].
        baseline: those of padding where there is content; elsewhere as in ``x``, [B, T, D].
        mask: as in ``Inputs``, [B, T].
        content: as in ``Inputs``, [B, T].
    """

    x: Tensor
    baseline: Tensor
    mask: Tensor
    content: Tensor

    def rows(self) -> Iterator[Embedded]:
        """Each example alone, without its padding."""
        for row, length in enumerate(self.mask.sum(1).tolist()):
            own = slice(row, row + 1), slice(0, length)
            yield Embedded(self.x[own], self.baseline[own], self.mask[own], self.content[own])

    def moved_to(self, x: Tensor) -> Embedded:
        """Other embeddings x [N, T, D] in the place of a single example's."""
        others = (self.baseline, self.mask, self.content)
        return Embedded(x, *(each.repeat_interleave(len(x), 0) for each in others))

    def without(self, rows: Tensor, removed: Tensor) -> Tensor:
        """Embeddings [N, T, D] of examples ``rows`` [N], baseline at ``removed`` [N, T]."""
        return torch.where(removed[..., None], self.baseline[rows], self.x[rows])


@torch.no_grad()
def embed(model: AttentionModel, inputs: Inputs) -> Embedded:
    """Embed records, and the baseline to compare them with: padding wherever there is content."""
    x, blank = model.embed(inputs.values), model.embed(inputs.blank)
    baseline = torch.where(inputs.content[..., None], blank, x)
    return Embedded(x, baseline, inputs.mask, inputs.content)


def content_of(places: Sequence[Place | None]) -> list[bool]:
    """For each position whether it has a place in its record; the model added the others."""
    return [place is not None for place in places]
