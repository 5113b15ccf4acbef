"""Text classifiers on hardened attention: what all have in common, and the BERT-shaped one.

Shapes: B batch, T tokens, D model width, K classes. Where texts are packed, [N] of all their tokens
stands for [B, T].
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnpriv.attention import Packing
from attnpriv.config import ModelConfig
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.classifier import AttentionClassifier


class TextModel(AttentionClassifier):
    """Token ids to class logits; texts may also come packed.

    Attributes:
        words: the vector of each token.
    """

    words: nn.Embedding

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def embed(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """What the first block reads: ids [B, T] to [B, T, D], each token by itself.

        Raises:
            InputError: a text is longer than the model reads.
        """

    def check_length(self, ids: Tensor, packing: Packing | None) -> int:
        """The number of tokens of the longest text; raises InputError where there are too many."""
        longest = ids.shape[1] if packing is None else packing.longest
        if longest > self.config.max_length:
            raise InputError(f"expected at most {self.config.max_length} tokens, got {longest}")
        return longest


class TextClassifier(BlocksClassifier, TextModel):
    """A BERT-shaped encoder of token ids and its head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.make_blocks()
        self.draw_weights()

    def embed(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """Word plus position embeddings after their layer norm: ids [B, T] to [B, T, D].

        Raises:
            InputError: a text is longer than the model's positions.
        """
        longest = self.check_length(ids, packing)
        if packing is not None:
            positions = packing.positions
        else:
            # One row of positions for each text: Opacus needs the batch dimension on every input.
            positions = torch.arange(longest, device=ids.device).repeat(ids.shape[0], 1)
        embedded: Tensor = self.embedding_norm(self.words(ids) + self.positions(positions))
        return embedded


def pack_batch(encodings: Sequence[Encoding], pad_id: int) -> tuple[Tensor, Packing]:
    """Lay encodings end to end: their ids [N], filled up with ``pad_id``, and where they lie."""
    ids = torch.tensor([i for e in encodings for i in e.ids], dtype=torch.int64)
    return pack_tokens(ids, [len(e.ids) for e in encodings], pad_id)


def pack_tokens(ids: Tensor, lengths: Sequence[int], pad_id: int = 0) -> tuple[Tensor, Packing]:
    """As ``pack_batch``, for ids [n] of texts in a row; what fills up is never attended to."""
    packing = Packing(lengths)
    filled = torch.full_like(packing.positions, pad_id)
    filled[: packing.tokens] = ids
    return filled, packing
