"""A small detector on hardened attention, after DETR (Carion et al. 2020, arXiv:2005.12872).

Convolutions read the grid of patches and halve it, blocks let its cells attend to each other, and
every cell becomes a query that is anchored where it is (the two stages of Zhu et al. 2021,
arXiv:2010.04159, with all cells as proposals). Queries attend to each other and to the cells. All
attention is hardened; group norm, no batch norm.

Shapes: B images, T patches in a grid of H × W, N cells in one of H/2 × W/2, D model width, K
classes; outputs [B, N, K + 5] as in ``attnpriv.detection``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.attention import MultiHeadCrossAttention, MultiHeadSelfAttention, Packing
from attnpriv.config import parse_trainable
from attnpriv.detection import DETECT, OF_BOX, Detection
from attnpriv.errors import InputError
from attnpriv.models.blocks import Block
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.shapes import DetectorConfig

USUAL_SIDE = 0.3  # of a box, as a share of the image: where untrained answers begin
RARE = 0.02  # the chance of each class in untrained answers


class DetectionHead(nn.Module):
    """States of queries [..., N, D] to class logits and boxes [..., N, K + 5]."""

    anchors: Tensor

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.in_features = config.dim
        self.linear = nn.Linear(config.dim, config.num_labels + 1 + OF_BOX)
        nn.init.normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        with torch.no_grad():
            self.linear.bias[config.num_labels] = -torch.tensor(RARE).log()
        rows, columns = config.cells
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centres = torch.stack([(x + 0.5) / columns, (y + 0.5) / rows], -1).view(-1, 2)
        anchors = torch.cat([centres, torch.full_like(centres, USUAL_SIDE)], -1)
        self.register_buffer("anchors", anchors.logit(), persistent=False)

    def forward(self, states: Tensor) -> Tensor:
        """Boxes are moved away from where their query is anchored."""
        found = self.linear(states)
        classes, moves = found[..., :-OF_BOX], found[..., -OF_BOX:]
        return torch.cat([classes, (moves + self.anchors).sigmoid()], -1)


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the cells; each time added and normed."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        shape = config.dim, config.heads, config.attention
        self.among = MultiHeadSelfAttention(*shape)
        self.among_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.cross = MultiHeadCrossAttention(*shape)
        self.cross_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.expand = nn.Linear(config.dim, config.hidden_dim)
        self.contract = nn.Linear(config.hidden_dim, config.dim)
        self.output_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)

    def forward(self, queries: Tensor, cells: Tensor) -> Tensor:
        """Map queries [B, N, D] to the same shape."""
        queries = self.among_norm(queries + self.among(queries, None)[0])
        queries = self.cross_norm(queries + self.cross(queries, cells, None)[0])
        out: Tensor = self.output_norm(queries + self.contract(F.gelu(self.expand(queries))))
        return out


class DetectorModel(AttentionClassifier):
    """The pixels of patches to objects.

    A patch is embedded by itself, as in the other models for images. What it has in common with
    classifiers is all but its head and its task.
    """

    config: DetectorConfig

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        dim, fine, groups = config.dim, config.patch_dim, config.groups
        self.patches = nn.Linear(config.patch**2 * config.channels, fine)
        self.positions = nn.Embedding(config.max_length, fine)
        self.embedding_norm = nn.LayerNorm(fine, eps=config.norm_eps)
        self.stem = nn.Sequential(
            *(nn.Conv2d(fine, fine, 3, padding=1), nn.GroupNorm(groups, fine), nn.ReLU()),
            *(nn.Conv2d(fine, dim, 3, stride=2, padding=1), nn.GroupNorm(groups, dim), nn.ReLU()),
            *(nn.Conv2d(dim, dim, 3, padding=1), nn.GroupNorm(groups, dim), nn.ReLU()),
        )
        self.cell_positions = nn.Embedding(config.keys, dim)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
        self.head: DetectionHead = DetectionHead(config)  # type: ignore[assignment]

    @property
    def task(self) -> Detection:
        """Detection."""
        return DETECT

    def embed(self, values: Tensor) -> Tensor:
        """The projection of each patch and its position, normed: [B, T, P] to [B, T, D/2].

        Raises:
            InputError: there are other patches than the model reads.
        """
        expected = (self.config.max_length, self.patches.in_features)
        if values.shape[1:] != expected:
            raise InputError(
                f"expected {expected[0]} patches of {expected[1]} numbers, got "
                f"{' × '.join(map(str, values.shape[1:]))}"
            )
        embedded: Tensor = self.embedding_norm(
            self.patches(values) + self.positions(_numbers(values, expected[0]))
        )
        return embedded

    def encode(
        self, x: Tensor, mask: Tensor | Packing, need_weights: bool = False
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """Run it on x [B, T, D/2]: states of queries [B, N, D], and maps of the blocks, or None."""
        grid = self.config.patches.grid
        maps = self.stem(x.transpose(1, 2).reshape(len(x), -1, *grid))
        cells = maps.flatten(2).transpose(1, 2)
        cells = cells + self.cell_positions(_numbers(x, self.config.keys))
        seen = torch.ones(cells.shape[:2], dtype=torch.bool, device=x.device)
        weights = []
        for block in self.blocks:
            cells, own = block(cells, seen, need_weights)
            weights.append(own)
        queries = cells
        for layer in self.decoder:
            queries = layer(queries, cells)
        return [queries], weights if need_weights else None

    def pool(self, states: list[Tensor], mask: Tensor | Packing) -> Tensor:
        """The states of the queries themselves, [B, N, D]."""
        return states[0]

    def select_trainable(self, trainable: str) -> None:
        """Choose what is trained: the head, or everything.

        Raises:
            InputError: another form.
        """
        kind = parse_trainable(trainable).kind
        if kind not in ("head", "all"):
            raise InputError(f"expected trainable head or all with detector, got {trainable!r}")
        self.requires_grad_(kind == "all")
        self.head.requires_grad_(True)


def _numbers(batch: Tensor, count: int) -> Tensor:
    """0 to count - 1 for each row: Opacus needs the batch dimension on every input."""
    return torch.arange(count, device=batch.device).repeat(len(batch), 1)
