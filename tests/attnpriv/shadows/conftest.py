"""A run whose encoder is frozen, and eight shadow models of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.runs.folder import Run, load_run
from attnpriv.shadows import train_shadows
from attnpriv.training import train


@pytest.fixture(scope="session")
def frozen_run(tmp_path_factory: pytest.TempPathFactory, tickets: Dataset) -> Run:
    out = tmp_path_factory.mktemp("frozen") / "frozen"
    config = TrainConfig(trainable="head", steps=7, warmup=0.3, decay="linear", ema_decay=0.5)
    train(
        tickets,
        out,
        encoder="scratch",
        attention=AttentionConfig(temperature=2.0, clip=2.0),
        config=config,
        privacy=None,
    )
    return load_run(out)


@pytest.fixture(scope="session")
def shadows(tmp_path_factory: pytest.TempPathFactory, frozen_run: Run, tickets: Dataset) -> Path:
    out = tmp_path_factory.mktemp("shadows") / "shadows"
    train_shadows(frozen_run, tickets, out, models=8)
    return out
