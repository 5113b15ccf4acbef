"""A stack of post-norm encoder blocks on hardened attention, whatever its positions are.

Shapes: B batch, T positions, D model width, H heads, L layers. Where records are packed, [N] of all
their positions stands for [B, T].
"""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import MultiHeadSelfAttention, Packing
from attnpriv.config import parse_trainable
from attnpriv.errors import InputError
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.lora import LowRankLinear, add_adapters, merge_adapters
from attnpriv.models.shapes import BlocksShape, CnnConfig, ScatteringConfig

INITIAL_STD = 0.02  # of every weight matrix, as in BERT (Devlin et al. 2019)


class Block(nn.Module):
    """One post-norm encoder block: attention, then a feed-forward layer, each added and normed."""

    def __init__(self, config: BlocksShape) -> None:
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


class BlocksClassifier(AttentionClassifier):
    """A classifier whose layers are blocks; what it reads decides its embedding alone.

    Attributes:
        blocks: one for each layer, or a single one where ``config.share_layers``.
    """

    def make_blocks(self) -> None:
        """Add the blocks and the head."""
        config = self.config
        # No model of such a shape has blocks like these.
        assert not isinstance(config, CnnConfig | ScatteringConfig)
        blocks = 1 if config.share_layers else config.layers
        self.blocks = nn.ModuleList(Block(config) for _ in range(blocks))
        self.head = nn.Linear(config.features, config.num_labels)

    def draw_weights(self) -> None:
        """Draw all weights but the head's, which start at 0: every class is equally likely."""
        self.apply(_initialise)
        nn.init.zeros_(self.head.weight)

    @property
    def layers(self) -> list[nn.Module]:
        """The block that each of the L layers applies: L times the same one where it is shared."""
        return [*self.blocks] * (self.config.layers // len(self.blocks))

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run the layers on x [B, T, D] under mask [B, T], True where a position is.

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
            x: embeddings, or the hidden states after ``start`` layers, [B, T, D].
            mask: [B, T], True where a position is.
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
        """One vector of norm 1 a record, [B, D·S] for S pooled states [B, T, D].

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
        if self.config.pooling == "places" and isinstance(mask, Tensor):
            return (hidden * mask.unsqueeze(-1)).flatten(1)
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


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=INITIAL_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
