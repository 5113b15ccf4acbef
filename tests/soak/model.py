"""A model to be asked; nothing here or in tests/fuzz depends on what it answers."""

from __future__ import annotations

from pathlib import Path

import torch

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.training import train


def make_model(path: Path) -> None:
    """A small private one."""
    torch.set_num_threads(1)
    train(
        load_dataset("tickets:rows=300"),
        path,
        encoder="scratch",
        attention=AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm"),
        config=TrainConfig(trainable="last:1", steps=3),
        privacy=PrivacyConfig(epsilon=3.0),
    )
