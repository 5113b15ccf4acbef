"""A small vision transformer on hardened attention (Dosovitskiy et al. 2021, arXiv:2010.11929).

Patches go through the same blocks as tokens, so that all that is said of attention over tokens
holds for patches. No token stands for the whole image.

Shapes: B batch, T patches, P numbers of a patch, D model width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnpriv.errors import InputError
from attnpriv.models.blocks import BlocksClassifier
from attnpriv.models.shapes import VisionConfig

POSITION_STD = 0.5  # of a position, about that of what is projected from a patch


class VisionClassifier(BlocksClassifier):
    """The pixels of patches to class logits.

    A patch is embedded by itself: replacing its embedding by that of black pixels is the same, to
    the bit, as blackening the patch.
    """

    config: VisionConfig

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patches = nn.Linear(config.patch**2 * config.channels, config.dim)
        self.positions = nn.Embedding(config.max_length, config.dim)
        self.embedding_norm = nn.LayerNorm(config.dim, eps=config.norm_eps)
        self.make_blocks()
        self.draw_weights()

    def draw_weights(self) -> None:
        """Draw all weights but the head's, which start at 0, with variance 1 over their inputs.

        Under differential privacy few of them move far, so that what they make of an image must be
        of use from the start (variance as in LeCun et al. 1998, Efficient BackProp).
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.positions.weight, std=POSITION_STD)
        nn.init.zeros_(self.head.weight)

    def embed(self, values: Tensor) -> Tensor:
        """The projection of each patch and its position, normed: [B, T, P] to [B, T, D].

        Raises:
            InputError: there are other patches than the model reads.
        """
        expected = (self.config.max_length, self.patches.in_features)
        if values.shape[1:] != expected:
            raise InputError(
                f"expected {expected[0]} patches of {expected[1]} numbers, got "
                f"{' × '.join(map(str, values.shape[1:]))}"
            )
        # One row of positions for each image: Opacus needs the batch dimension on every input.
        places = torch.arange(expected[0], device=values.device).repeat(len(values), 1)
        embedded: Tensor = self.embedding_norm(self.patches(values) + self.positions(places))
        return embedded
