"""What all classifiers have in common, whatever they read.

Shapes: B batch, T positions, D model width, F features, H heads, L layers, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnpriv.attention import HardenedAttention, Packing
from attnpriv.modality import AttentionMap, MapKind, Modality, Pass, Sample
from attnpriv.models.shapes import Shape
from attnpriv.tasks import CLASSIFY, Task


class AttentionClassifier(nn.Module, ABC):
    """Embedded positions to class logits, with the attention maps on request.

    No dropout: under differential privacy the noise regularises already, and a forward pass that
    is deterministic can be audited.

    Attributes:
        config: the model's shape.
        blocks: what attends, one after the other.
        head: from the features of a record to its class logits.
    """

    config: Shape
    blocks: nn.ModuleList
    head: nn.Linear

    @abstractmethod
    def embed(self, values: Tensor) -> Tensor:
        """What the first block reads, [B, T, D], each position by itself."""

    @abstractmethod
    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run the blocks on x [B, T, D] under mask [B, T], True where a position is.

        Returns:
            What ``pool`` takes, and L maps or None.
        """

    @abstractmethod
    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """The features of each record, which the head sees, [B, F]."""

    @abstractmethod
    def select_trainable(self, trainable: str) -> None:
        """Freeze all but the head and what is named; raise InputError where it has no such part."""

    def fast_parameters(self) -> list[nn.Parameter]:
        """What is trained with the learning rate of the head."""
        return list(self.head.parameters())

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, K] for what stands at each position, under mask [B, T]."""
        return self.run(self.embed(values), mask).outputs

    def run(self, x: Tensor, mask: Tensor, need_maps: bool = False) -> Pass:
        """Class logits, pooled features and, on request, attention of embeddings x [B, T, D]."""
        states, weights = self.encode(x, mask, need_maps)
        features = self.pool(states, mask)
        kind: MapKind = "spatial" if self.gated_layers else "self"
        maps = tuple(AttentionMap(kind, each) for each in weights or ())
        return Pass(self.head(features), features, maps)

    @property
    def task(self) -> Task:
        """What its outputs are for."""
        return CLASSIFY

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Layers L and heads H, a shared block counted once for each layer that applies it."""
        return self.config.layers, self.config.heads

    @property
    def gated_layers(self) -> int:
        """How many layers weigh positions by spatial gates; none but for some convolutions."""
        return 0

    @property
    def feature_maps(self) -> nn.Module | None:
        """The last layer whose output is maps over the grid of positions, [B, D, H, W], if any."""
        return None

    def temperatures(self) -> list[list[float]]:
        """τ of every head of every layer, as trained."""
        cores = (m for m in self.modules() if isinstance(m, HardenedAttention))
        return [core.temperatures() for core in cores for _ in range(core.applications)]


def batches_by_length(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, so that little is spent on padding."""
    order = sorted(range(len(samples)), key=lambda row: samples[row].size)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.no_grad()
def pooled_features(
    model: AttentionClassifier,
    modality: Modality[Any, Any],
    samples: Sequence[Sample],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """What the head sees of each sample, [N, F]; of a detector, its queries, [N, Q, D].

    Args:
        model: its encoder is used as it is, without gradients.
        modality: how the samples were read.
        samples: N of them.
        batch_size: samples in one forward pass; neighbours do not change each other's result beyond
            float32 rounding.
        progress: called with (samples done, N) after each batch.
    """
    features = torch.empty(len(samples), model.head.in_features)
    done = 0
    for rows in batches_by_length(samples, batch_size):
        inputs = modality.collate([samples[row] for row in rows])
        found = model.run(model.embed(inputs.values), inputs.mask).features
        if features.shape[1:] != found.shape[1:]:
            features = found.new_empty(len(samples), *found.shape[1:])
        features[rows] = found
        done += len(rows)
        if progress is not None:
            progress(done, len(samples))
    return features
