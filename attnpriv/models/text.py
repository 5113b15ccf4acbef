"""Text classifiers on hardened attention: what all have in common, and the BERT-shaped one.

Shapes: B batch, T tokens, D model width, H heads, L layers, K classes. Where texts are packed,
[N] of all their tokens stands for [B, T].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import HardenedAttention, MultiHeadSelfAttention, Packing
from attnpriv.config import ModelConfig, parse_trainable
from attnpriv.data.tokenisation import Encoding
from attnpriv.errors import InputError
from attnpriv.modality import AttentionMap, Modality, Pass, Read, Sample
from attnpriv.models.lora import LowRankLinear, add_adapters, merge_adapters

INITIAL_STD = 0.02  # of every weight matrix, as in BERT (Devlin et al. 2019)


class Block(nn.Module):
    """One post-norm encoder block: attention, then a feed-forward layer, each added and normed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = MultiHeadSelfAttention(
            config.dim,
            config.heads,
            config.attention,
            positions=config.max_length if config.relative_positions else None,
        )
        self.attention.core.applications = config.layers if config.share_layers else 1
        self.attention_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.expand = nn.Linear(config.dim, config.hidden_dim)
        self.contract = nn.Linear(config.hidden_dim, config.dim)
        self.output_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Map x [B, T, D] under mask [B, T] to ([B, T, D], weights [B, H, T, T] or None)."""
        attended, weights = self.attention(x, mask, need_weights)
        x = self.attention_norm(x + attended)
        return self.output_norm(x + self.contract(F.gelu(self.expand(x)))), weights


class TextModel(nn.Module, ABC):
    """Token ids to class logits, with the attention weights on request.

    No dropout: under differential privacy the noise regularises already, and a forward pass that
    is deterministic can be audited.

    Attributes:
        config: the model's shape.
        blocks: what attends, one after the other.
        head: from the features of a text to its class logits.
    """

    blocks: nn.ModuleList
    head: nn.Linear

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def embed(self, ids: Tensor, packing: Packing | None = None) -> Tensor:
        """What the first block reads: ids [B, T] to [B, T, D], each token by itself.

        Raises:
            InputError: a text is longer than the model reads.
        """

    @abstractmethod
    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run the blocks on x [B, T, D] under mask [B, T], True where a token is.

        Returns:
            What ``pool`` takes, and L weights [B, H, T, T] or None.
        """

    @abstractmethod
    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """The features of each text, which the head sees, [B, F]."""

    @abstractmethod
    def select_trainable(self, trainable: str) -> None:
        """Freeze all but the head and what is named; raise InputError where it has no such part."""

    def fast_parameters(self) -> list[nn.Parameter]:
        """What is trained with the learning rate of the head."""
        return list(self.head.parameters())

    def check_length(self, ids: Tensor, packing: Packing | None) -> int:
        """The number of tokens of the longest text; raises InputError where there are too many."""
        longest = ids.shape[1] if packing is None else packing.longest
        if longest > self.config.max_length:
            raise InputError(f"expected at most {self.config.max_length} tokens, got {longest}")
        return longest

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Class logits [B, K] for ids [B, T] under mask [B, T]."""
        return self.run(self.embed(ids), mask).outputs

    def run(self, x: Tensor, mask: Tensor, need_maps: bool = False) -> Pass:
        """Class logits, pooled features and, on request, attention of embeddings x [B, T, D]."""
        states, weights = self.encode(x, mask, need_maps)
        features = self.pool(states, mask)
        maps = tuple(AttentionMap("self", each) for each in weights or ())
        return Pass(self.head(features), features, maps)

    @property
    def attention_shape(self) -> tuple[int, int]:
        """Layers L and heads H, a shared block counted once for each layer that applies it."""
        return self.config.layers, self.config.heads

    def temperatures(self) -> list[list[float]]:
        """τ of every head of every layer, as trained."""
        cores = (m for m in self.modules() if isinstance(m, HardenedAttention))
        return [core.temperatures() for core in cores for _ in range(core.applications)]


class TextClassifier(TextModel):
    """A BERT-shaped encoder of token ids and its head.

    Attributes:
        blocks: one for each layer, or a single one where ``config.share_layers``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        blocks = 1 if config.share_layers else config.layers
        self.blocks = nn.ModuleList(Block(config) for _ in range(blocks))
        self.head = nn.Linear(config.dim * len(config.pooled_layers), config.num_labels)
        self.apply(_initialise)
        nn.init.zeros_(self.head.weight)  # an unbiased start: every class equally likely

    @property
    def layers(self) -> list[nn.Module]:
        """The block that each of the L layers applies: L times the same one where it is shared."""
        return [*self.blocks] * (self.config.layers // len(self.blocks))

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

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run the layers on x [B, T, D] under mask [B, T], True where a token is.

        Returns:
            Hidden states [B, T, D] after each layer that is pooled, and L weights [B, H, T, T] or
            None.
        """
        _, states, weights = self.run_layers(x, mask, need_weights=need_weights)
        return states, weights if need_weights else None

    def run_layers(
        self,
        x: Tensor,
        mask: Tensor | Packing,
        start: int = 0,
        stop: int | None = None,
        need_weights: bool = False,
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Run the layers from ``start``, counted from 0, up to and without ``stop``.

        Args:
            x: token embeddings, or the hidden states after ``start`` layers, [B, T, D].
            mask: [B, T], True where a token is.
            start: layers to leave out.
            stop: where to end; None runs the last one too.
            need_weights: whether the layers shall make their weights.

        Returns:
            The hidden states after the last of these layers and after each that is pooled, and
            what they returned as weights.
        """
        states, weights = [], []
        for number, block in enumerate(self.layers[start:stop], start=start + 1):
            x, layer_weights = block(x, mask, need_weights)
            weights.append(layer_weights)
            if number in self.config.pooled_layers:
                states.append(x)
        return x, states, weights

    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """One vector of norm 1 a text, [B, D·S] for S pooled states [B, T, D].

        Several layers side by side make better features than the last alone (Devlin et al. 2019,
        section 5.3). The unit norm keeps the head's gradients of one size, so that clipping
        distorts little.
        """
        return F.normalize(self.pool_each(states, mask), dim=-1)

    def pool_each(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """The parts of ``pool``, one of norm 1 for each state, side by side [B, D·S]."""
        vectors = [F.normalize(self._vectors(hidden, mask), dim=-1) for hidden in states]
        return torch.cat(vectors, dim=-1)

    def _vectors(self, hidden: Tensor, mask: Tensor | Packing) -> Tensor:
        first_only = self.config.pooling == "cls"
        # The sum has the direction of the mean, and normalising takes care of the rest.
        if isinstance(mask, Packing):
            return hidden[mask.starts] if first_only else mask.sums(hidden)
        return hidden[:, 0] if first_only else (hidden * mask.unsqueeze(-1)).sum(1)

    def select_trainable(self, trainable: str) -> None:
        """Freeze all but the head and what is named.

        ==================  ======================================================================
        form                trained besides the head
        ==================  ======================================================================
        ``head``            nothing
        ``bias``            every bias, those of the layer norms too (Ben Zaken et al. 2022)
        ``last:K``          the last K blocks
        ``lora:R``          adapters of rank R on every linear layer of every block (Hu et al. 2022)
        ``lora:R:last:K``   the same in the last K blocks
        ``all``             everything
        ==================  ======================================================================

        Embeddings are trained under ``all`` alone; learned temperatures and the vectors of additive
        scores under ``all``, and in the blocks of ``last:K``.

        ``lora`` adds its adapters here, at random from torch's global generator, which the caller
        seeds; fold them in with ``merge_adapters`` after training. Those of an earlier call are
        folded in first, whatever the form.

        Args:
            trainable: one of these forms.

        Raises:
            InputError: another form, K exceeds the number of blocks or there is but a shared one,
                or R exceeds a side of a linear layer.
        """
        chosen = parse_trainable(trainable)
        blocks = self.last_blocks(chosen.last)
        if chosen.rank is not None:
            add_adapters(self, chosen.rank, chosen.last)
        else:
            merge_adapters(self)
        self.requires_grad_(False)
        self.head.requires_grad_(True)
        match chosen.kind:
            case "head":
                pass
            case "bias":
                for name, parameter in self.named_parameters():
                    if name.endswith(".bias"):
                        parameter.requires_grad_(True)
            case "last":
                blocks.requires_grad_(True)
            case "lora":
                for module in blocks.modules():
                    if isinstance(module, LowRankLinear):
                        module.down.requires_grad_(True)
                        module.up.requires_grad_(True)
            case "all":
                self.requires_grad_(True)
            case _:
                assert_never(chosen.kind)

    def last_blocks(self, count: int | None) -> nn.ModuleList:
        """The last ``count`` blocks, or all of them for None.

        Raises:
            InputError: there are fewer blocks, or all layers share one.
        """
        if count is None:
            return self.blocks
        if self.config.share_layers:
            raise InputError(f"expected no last:K where layers share one block, got 'last:{count}'")
        if count > len(self.blocks):
            raise InputError(f"expected at most last:{len(self.blocks)}, got 'last:{count}'")
        return self.blocks[len(self.blocks) - count :]


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


def batches_by_length(samples: Sequence[Sample], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of similar length, so that little is spent on padding."""
    order = sorted(range(len(samples)), key=lambda row: samples[row].size)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.no_grad()
def pooled_features(
    model: TextModel,
    modality: Modality[Any, Read],
    samples: Sequence[Read],
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The vectors that the head sees, [N, D·S], in the order of the samples.

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
        features[rows] = model.run(model.embed(inputs.values), inputs.mask).features
        done += len(rows)
        if progress is not None:
            progress(done, len(samples))
    return features


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
