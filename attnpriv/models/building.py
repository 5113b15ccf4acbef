"""Which model a configuration describes."""

from __future__ import annotations

from attnpriv.config import ModelConfig
from attnpriv.models.text import TextClassifier, TextModel
from attnpriv.models.words import WordsClassifier


def build_model(config: ModelConfig) -> TextModel:
    """The untrained model of a configuration."""
    return WordsClassifier(config) if config.isolated else TextClassifier(config)


def matrix_weights(config: ModelConfig) -> int:
    """How many weights the matrices hold, which are nearly all of a model's."""
    dim, head = config.dim, config.num_labels * config.dim * len(config.pooled_layers)
    if config.isolated:
        return config.vocab_size * dim + head
    blocks = 1 if config.share_layers else config.layers
    embeddings = (config.vocab_size + config.max_length) * dim
    return embeddings + blocks * (4 * dim * dim + 2 * dim * config.hidden_dim) + head
