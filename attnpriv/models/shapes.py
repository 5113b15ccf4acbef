"""The shapes of models: ``attnpriv.config.ModelConfig`` for texts, and those for images here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from attnpriv.config import (
    VIT,
    AttentionConfig,
    Kind,
    ModelConfig,
    Pooling,
    check_computable,
    check_divides,
    require_count,
    thirds,
)
from attnpriv.data.image.patches import Patches
from attnpriv.errors import InputError


@dataclass(frozen=True)
class VisionConfig:
    """The shape of a vision transformer: patches of an image, and post-norm encoder blocks.

    Attributes:
        encoder: its name, ``vit``.
        height: of every image, in pixels.
        width: likewise.
        channels: 1 of grey images, 3 of colour.
        patch: side of a patch, in pixels.
        dim: width D of a patch's vector.
        layers: number of encoder layers.
        heads: number of attention heads H, a divisor of ``dim``.
        hidden_dim: width of the feed-forward layer.
        num_labels: number of classes K, at least 2.
        pooling: what the head reads: the states of all ``places`` side by side, so that it knows
            where something is; or their ``mean``, or ``layers``, as in ``ModelConfig``.
        norm_eps: ε of every layer norm.
        attention: how attention is hardened, the same in every layer.
        share_layers: as in ``ModelConfig``.

    Raises:
        InputError: a size is below 1, ``dim`` is not a multiple of ``heads``, or ``cls`` pooling.
    """

    height: int
    width: int
    channels: int
    patch: int
    num_labels: int
    encoder: str = VIT
    dim: int = 64
    layers: int = 2
    heads: int = 4
    hidden_dim: int = 128
    pooling: Pooling = "places"
    norm_eps: float = 1e-6
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    share_layers: bool = False

    def __post_init__(self) -> None:
        sizes = ("height", "width", "channels", "patch", "dim", "layers", "heads", "hidden_dim")
        for name in sizes:
            require_count(name, getattr(self, name))
        if self.num_labels < 2:
            raise InputError(f"expected num_labels >= 2, got {self.num_labels}")
        check_divides(self.heads, self.dim)
        check_computable(self.attention)
        if self.pooling not in ("mean", "layers", "places"):
            raise InputError(
                f"expected pooling mean, layers or places for images, got {self.pooling!r}"
            )

    @property
    def kind(self) -> Kind:
        """What the model reads."""
        return "image"

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """Height, width and channels of the images that the model reads."""
        return self.height, self.width, self.channels

    @property
    def pretrained(self) -> bool:
        """Whether the encoder came trained."""
        return False

    @property
    def patches(self) -> Patches:
        """How the model reads images."""
        return Patches(self.height, self.width, self.channels, self.patch)

    @property
    def max_length(self) -> int:
        """How many patches there are."""
        rows, columns = self.patches.grid
        return rows * columns

    @property
    def pooled_layers(self) -> tuple[int, ...]:
        """As in ``ModelConfig``."""
        return thirds(self.layers) if self.pooling == "layers" else (self.layers,)

    @property
    def features(self) -> int:
        """How many numbers the head reads of an image."""
        places = self.max_length if self.pooling == "places" else 1
        return places * self.dim * len(self.pooled_layers)

    @property
    def relative_positions(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def isolated(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {"kind": self.kind, **asdict(self)}


Shape = ModelConfig | VisionConfig


def read_shape(values: dict[str, Any]) -> Shape:
    """The shape that ``to_dict`` wrote; raises InputError on missing or unknown fields."""
    if values.get("kind") != "image":
        return ModelConfig.from_dict(values)
    own = {name: value for name, value in values.items() if name != "kind"}
    try:
        return VisionConfig(**{**own, "attention": AttentionConfig(**own["attention"])})
    except (KeyError, TypeError) as error:
        raise InputError(f"the model configuration is not usable: {error}") from error
