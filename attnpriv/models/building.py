"""Which model a configuration describes."""

from __future__ import annotations

from typing import assert_never, overload

from attnpriv.config import ModelConfig
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.detector import DetectorModel
from attnpriv.models.scattering import ScatteringClassifier
from attnpriv.models.shapes import (
    CnnConfig,
    DetectorConfig,
    ScatteringConfig,
    Shape,
    VisionConfig,
)
from attnpriv.models.text import TextClassifier, TextModel
from attnpriv.models.vision import VisionClassifier
from attnpriv.models.words import WordsClassifier


@overload
def build_model(config: ModelConfig) -> TextModel: ...
@overload
def build_model(config: Shape) -> AttentionClassifier: ...
def build_model(config: Shape) -> AttentionClassifier:
    """The untrained model of a configuration."""
    match config:
        case ModelConfig(isolated=True):
            return WordsClassifier(config)
        case ModelConfig():
            return TextClassifier(config)
        case VisionConfig():
            return VisionClassifier(config)
        case CnnConfig():
            return CnnClassifier(config)
        case ScatteringConfig():
            return ScatteringClassifier(config)
        case DetectorConfig():
            return DetectorModel(config)
        case _:
            assert_never(config)


def matrix_weights(config: Shape) -> int:
    """How many weights the matrices hold, which are nearly all of a model's."""
    dim, head = config.dim, config.num_labels * config.features
    if isinstance(config, ScatteringConfig):
        return head
    if config.isolated:
        return _inputs(config) * dim + head
    if isinstance(config, CnnConfig):
        return _inputs(config) * dim + config.layers * 2 * 9 * dim * dim + head
    if isinstance(config, DetectorConfig):
        block, feed = 4 * dim * dim, 2 * dim * config.hidden_dim
        return config.layers * (3 * block + 2 * feed) + 15 * dim * dim + head
    blocks = 1 if config.share_layers else config.layers
    embeddings = (_inputs(config) + config.max_length) * dim
    return embeddings + blocks * (4 * dim * dim + 2 * dim * config.hidden_dim) + head


def _inputs(config: Shape) -> int:
    """Rows of what embeds one position: a table of tokens, or a projection of pixels."""
    if isinstance(config, ModelConfig):
        return config.vocab_size
    return config.patch**2 * config.channels
