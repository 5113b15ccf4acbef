"""A small convolutional network with or without gates, to compare attention with (He et al. 2016).

Group norm in place of batch norm: it computes each image by itself, so that the gradient of one can
be clipped (Wu and He 2018, arXiv:1803.08494).

Shapes: B images, T patches in a grid of H × W, P numbers of a patch, D channels.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import Packing
from attnpriv.attention.gates import ChannelGate, SpatialGate
from attnpriv.config import parse_trainable
from attnpriv.errors import InputError
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.shapes import CnnConfig


class ConvolutionBlock(nn.Module):
    """Two convolutions with their norms, gates, and the input added."""

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(config.dim, config.dim, 3, padding="same"),
            nn.GroupNorm(config.groups, config.dim),
            nn.ReLU(),
            nn.Conv2d(config.dim, config.dim, 3, padding="same"),
            nn.GroupNorm(config.groups, config.dim),
        )
        largest = config.gates == "cbam"
        self.channel = (
            None
            if config.gates == "none"
            else ChannelGate(config.attention, config.dim, largest=largest)
        )
        self.spatial = SpatialGate(config.attention) if largest else None

    def forward(self, x: Tensor) -> Tensor:
        """Feature maps [B, D, H, W] to others of the same shape."""
        return self.with_gates(x)[0]

    def with_gates(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The same, and the gates of the positions [B, H·W] where there are any."""
        changed: Tensor = self.body(x)
        if self.channel is not None:
            changed = changed * self.channel(changed)
        if self.spatial is None:
            return F.relu(x + changed), None
        gates: Tensor = self.spatial(changed)
        return F.relu(x + changed * gates), gates.flatten(1)


class CnnClassifier(AttentionClassifier):
    """The pixels of patches to class logits, by convolutions over the grid of patches.

    A patch is embedded by itself, as in the vision transformer, so that removing one is the same,
    to the bit, as blackening it. There are no maps between positions; of the gates, those of
    positions are maps of their own kind.

    Attributes:
        blocks: of convolutions.
    """

    config: CnnConfig

    def __init__(self, config: CnnConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Linear(config.patch**2 * config.channels, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.blocks = nn.ModuleList(ConvolutionBlock(config) for _ in range(config.layers))
        self.head = nn.Linear(config.features, config.num_labels)
        nn.init.normal_(self.patches.weight, std=self.patches.in_features**-0.5)
        nn.init.normal_(self.patches.bias)  # or a patch of one pixel would have one direction
        for module in self.blocks.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def attention_shape(self) -> tuple[int, int]:
        """No layers and no heads of self-attention."""
        return 0, 0

    @property
    def gated_layers(self) -> int:
        """Every block, or none."""
        return len(self.blocks) if self.config.gates == "cbam" else 0

    @property
    def feature_maps(self) -> nn.Module:
        """The last block."""
        return self.blocks[-1]

    def embed(self, values: Tensor) -> Tensor:
        """The projection of each patch, normed: [B, T, P] to [B, T, D].

        Raises:
            InputError: there are other patches than the model reads.
        """
        expected = (self.config.max_length, self.patches.in_features)
        if values.shape[1:] != expected:
            raise InputError(
                f"expected {expected[0]} patches of {expected[1]} numbers, got "
                f"{' × '.join(map(str, values.shape[1:]))}"
            )
        embedded: Tensor = self.embedding_norm(self.patches(values))
        return embedded

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run the blocks on x [B, T, D]; the state is [B, D, H, W], the maps are spatial gates."""
        x = x.transpose(1, 2).reshape(len(x), self.config.dim, *self.config.patches.grid)
        gates = []
        for block in self.blocks:
            assert isinstance(block, ConvolutionBlock)
            if need_weights and self.gated_layers:
                x, own = block.with_gates(x)
                assert own is not None
                gates.append(own)
            else:
                x = block(x)
        return [x], gates or None

    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """Means over a coarse grid, or over all, side by side, of norm 1: [B, F]."""
        pooled = F.adaptive_avg_pool2d(states[0], self.config.cells)
        return F.normalize(pooled.flatten(1), dim=-1)

    def select_trainable(self, trainable: str) -> None:
        """Choose what is trained: the head, every bias besides it, or everything.

        Raises:
            InputError: another form.
        """
        kind = parse_trainable(trainable).kind
        if kind not in ("head", "bias", "all"):
            raise InputError(f"expected trainable head, bias or all with cnn, got {trainable!r}")
        for name, parameter in self.named_parameters():
            chosen = kind == "all" or (kind == "bias" and name.endswith(".bias"))
            parameter.requires_grad_(chosen)
        self.head.requires_grad_(True)
