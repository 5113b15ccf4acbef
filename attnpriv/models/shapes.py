"""The shapes of models: ``attnpriv.config.ModelConfig`` for texts, and those for images here."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from attnpriv.config import (
    CNNS,
    DETECTOR,
    SCATTERING,
    VIT,
    AttentionConfig,
    GateChoice,
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

SCALES, ANGLES = 2, 8  # of the wavelets of scattering: J and L
PATHS = 1 + SCALES * ANGLES + SCALES * (SCALES - 1) // 2 * ANGLES**2  # of orders 0, 1 and 2
SMALLEST = 8  # pixels across an image that scattering can pad
CELLS = 4  # rows and columns of means that the head of a convolutional network reads


@dataclass(frozen=True, kw_only=True)
class ImageShape:
    """What the shapes of models for images have in common.

    Attributes:
        height: of every image, in pixels.
        width: likewise.
        channels: 1 of grey images, 3 of colour.
        patch: side of a patch, in pixels.
        num_labels: number of classes K, at least 2.
        dim: width D of a patch's vector.
        layers: number of blocks.
        norm_eps: ε of every layer norm.
    """

    height: int
    width: int
    channels: int
    patch: int
    num_labels: int
    dim: int
    layers: int = 2
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        for name in ("height", "width", "channels", "patch", "dim", "layers"):
            require_count(name, getattr(self, name))
        if self.num_labels < 2:
            raise InputError(f"expected num_labels >= 2, got {self.num_labels}")

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
    def keys(self) -> int:
        """How many positions a row of attention sees."""
        return self.max_length

    @property
    def relative_positions(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def isolated(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def pooled_layers(self) -> tuple[int, ...]:
        """As in ``ModelConfig``."""
        return (self.layers,)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON values."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class VisionConfig(ImageShape):
    """The shape of a vision transformer: patches of an image, and post-norm encoder blocks.

    Attributes:
        encoder: its name, ``vit``.
        heads: number of attention heads H, a divisor of ``dim``.
        hidden_dim: width of the feed-forward layer.
        pooling: what the head reads: the states of all ``places`` side by side, so that it knows
            where something is; or their ``mean``, or ``layers``, as in ``ModelConfig``.
        attention: how attention is hardened, the same in every layer.
        share_layers: as in ``ModelConfig``.

    Raises:
        InputError: a size is below 1, ``dim`` is not a multiple of ``heads``, or ``cls`` pooling.
    """

    encoder: str = VIT
    dim: int = 64
    heads: int = 4
    hidden_dim: int = 128
    pooling: Pooling = "places"
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    share_layers: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "hidden_dim"):
            require_count(name, getattr(self, name))
        check_divides(self.heads, self.dim)
        check_computable(self.attention)
        if self.pooling not in ("mean", "layers", "places"):
            raise InputError(
                f"expected pooling mean, layers or places for images, got {self.pooling!r}"
            )

    @property
    def pooled_layers(self) -> tuple[int, ...]:
        """As in ``ModelConfig``."""
        return thirds(self.layers) if self.pooling == "layers" else (self.layers,)

    @property
    def features(self) -> int:
        """How many numbers the head reads of an image."""
        places = self.max_length if self.pooling == "places" else 1
        return places * self.dim * len(self.pooled_layers)


@dataclass(frozen=True, kw_only=True)
class CnnConfig(ImageShape):
    """The shape of a convolutional network over the grid of patches.

    Attributes:
        encoder: its name, one of ``attnpriv.config.CNNS``, which says which gates it has.
        groups: of every group norm, a divisor of ``dim``.
        pooling: what the head reads: means over ``places``, a grid of 4 × 4, side by side; or the
            ``mean`` over the whole image.
        attention: clip, clip mode and temperature of the gates. It has no other attention.

    Raises:
        InputError: a size is below 1, ``dim`` is not a multiple of ``groups``, another pooling, or
            an attention that gates do not have: learned temperatures, additive scores, or a clip
            other than ``clamp`` or ``tanh``.
    """

    encoder: str
    dim: int = 32
    groups: int = 8
    pooling: Pooling = "places"
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in CNNS:
            raise InputError(f"expected one of {', '.join(CNNS)}, got {self.encoder!r}")
        require_count("groups", self.groups)
        check_divides(self.groups, self.dim)
        check_computable(self.attention)
        if self.pooling not in ("mean", "places"):
            raise InputError(f"expected pooling mean or places with cnn, got {self.pooling!r}")
        attention = self.attention
        if attention.temperature_floor is not None or attention.score != "dot_product":
            raise InputError("expected no learned temperatures and no scores: cnn has gates alone")
        if attention.clip is not None and attention.clip_mode not in ("clamp", "tanh"):
            raise InputError(
                f"expected clip mode clamp or tanh for gates, got {attention.clip_mode!r}"
            )

    @property
    def heads(self) -> int:
        """None: there is no attention between positions."""
        return 0

    @property
    def share_layers(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def gates(self) -> GateChoice:
        """Which gates every block has."""
        return CNNS[self.encoder]

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of the grid over which means are taken for the head."""
        rows, columns = self.patches.grid
        return (1, 1) if self.pooling == "mean" else (min(rows, CELLS), min(columns, CELLS))

    @property
    def features(self) -> int:
        """How many numbers the head reads of an image."""
        rows, columns = self.cells
        return rows * columns * self.dim


@dataclass(frozen=True, kw_only=True)
class ScatteringConfig(ImageShape):
    """The shape of a linear head on a scattering transform.

    Attributes:
        encoder: its name, ``scattering``.
        layers: the order of the transform, which is 2.
        pooling: ``places``: the head reads every path at every place.
        attention: that of the default, since there is none.

    Raises:
        InputError: a size is below 1, an image below 8 × 8 pixels, ``dim`` is not the size of a
            patch, or anything that attention would have.
    """

    encoder: str = SCATTERING
    pooling: Pooling = "places"
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.height, self.width) < SMALLEST:
            raise InputError(
                f"expected images of at least {SMALLEST} × {SMALLEST} pixels with scattering, got "
                f"{self.width} × {self.height}"
            )
        if self.dim != (numbers := self.patch**2 * self.channels):
            raise InputError(f"expected dim {numbers}, the numbers of a patch, got {self.dim}")
        if self.layers != SCALES:
            raise InputError(f"expected {SCALES} layers with scattering, got {self.layers}")
        if self.pooling != "places":
            raise InputError(f"expected pooling places with scattering, got {self.pooling!r}")
        if self.attention != AttentionConfig():
            raise InputError(
                "expected no clip, temperature or score with scattering, which has no attention"
            )

    @property
    def heads(self) -> int:
        """None: there is no attention."""
        return 0

    @property
    def share_layers(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def features(self) -> int:
        """How many numbers the head reads of an image."""
        places = (self.height // 4) * (self.width // 4)
        return self.channels * PATHS * places


@dataclass(frozen=True, kw_only=True)
class DetectorConfig(ImageShape):
    """The shape of a detector.

    Attributes:
        encoder: its name, ``detector``.
        layers: blocks on the cells, and as many layers of queries.
        heads: number of attention heads H, a divisor of ``dim``.
        hidden_dim: width of the feed-forward layers.
        groups: of every group norm, a divisor of half of ``dim``.
        pooling: ``places``: every query is read.
        attention: how all attention is hardened.

    Raises:
        InputError: a size is below 1, ``dim`` is no multiple of ``heads`` and ``groups``, or
            another pooling.
    """

    encoder: str = DETECTOR
    dim: int = 64
    layers: int = 1
    heads: int = 4
    hidden_dim: int = 128
    groups: int = 8
    pooling: Pooling = "places"
    attention: AttentionConfig = field(default_factory=AttentionConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("heads", "hidden_dim", "groups"):
            require_count(name, getattr(self, name))
        check_divides(self.heads, self.dim)
        check_divides(2 * self.groups, self.dim)
        check_computable(self.attention)
        if self.pooling != "places":
            raise InputError(f"expected pooling places with detector, got {self.pooling!r}")

    @property
    def patch_dim(self) -> int:
        """Width of an embedded patch: that of a cell is twice as much."""
        return self.dim // 2

    @property
    def cells(self) -> tuple[int, int]:
        """Rows and columns of cells, which the patches are brought together to."""
        rows, columns = self.patches.grid
        return -(-rows // 2), -(-columns // 2)

    @property
    def keys(self) -> int:
        """How many cells a row of attention sees; there are as many queries."""
        rows, columns = self.cells
        return rows * columns

    @property
    def share_layers(self) -> bool:
        """As in ``ModelConfig``."""
        return False

    @property
    def features(self) -> int:
        """How many numbers the head reads of a query."""
        return self.dim


BlocksShape = ModelConfig | VisionConfig | DetectorConfig
"""Of the models that are made of transformer blocks."""

Shape = BlocksShape | CnnConfig | ScatteringConfig


def read_shape(values: dict[str, Any]) -> Shape:
    """The shape that ``to_dict`` wrote; raises InputError on missing or unknown fields."""
    if values.get("kind") != "image":
        return ModelConfig.from_dict(values)
    own = {name: value for name, value in values.items() if name != "kind"}
    try:
        values = {**own, "attention": AttentionConfig(**own["attention"])}
        if own["encoder"] == SCATTERING:
            return ScatteringConfig(**values)
        if own["encoder"] == DETECTOR:
            return DetectorConfig(**values)
        return CnnConfig(**values) if own["encoder"] in CNNS else VisionConfig(**values)
    except (KeyError, TypeError) as error:
        raise InputError(f"the model configuration is not usable: {error}") from error
