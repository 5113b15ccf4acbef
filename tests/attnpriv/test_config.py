from __future__ import annotations

import math
from typing import Any

import pytest

from attnpriv.config import AttentionConfig, ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.errors import InputError

SHAPE: dict[str, Any] = {
    "encoder": "scratch",
    "vocab_size": 100,
    "dim": 12,
    "layers": 2,
    "heads": 3,
    "hidden_dim": 20,
    "max_length": 16,
    "num_labels": 2,
}


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"clip": 0}, "clip"),
        ({"clip": -1}, "clip"),
        ({"clip": math.nan}, "clip"),
        ({"clip": math.inf}, "clip"),
        ({"clip_mode": "probabilities"}, "clip_mode"),
        ({"score": "general"}, "score"),
        ({"temperature_floor": 0.0}, "temperature_floor"),
        ({"temperature_floor": 1.0}, "temperature_floor"),
    ],
)
def test_attention_refuses(values: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=f"expected {named} .*got {next(iter(values.values()))!r}"):
        AttentionConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"epsilon": 0},
        {"epsilon": -1},
        {"epsilon": math.inf},
        {"epsilon": math.nan},
        {"epsilon": 1, "delta": 0},
        {"epsilon": 1, "delta": 1},
        {"epsilon": 1, "max_grad_norm": 0},
        {"epsilon": 1, "accountant": "gdp"},
    ],
)
def test_privacy_refuses(values: dict[str, Any]) -> None:
    name, value = list(values.items())[-1]
    with pytest.raises(InputError, match=f"expected {name} .*got {value!r}"):
        PrivacyConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"trainable": "last:0"},
        {"trainable": "last:"},
        {"trainable": "tail"},
        {"steps": 0},
        {"batch_size": 0},
        {"micro_batch_size": 0},
        {"learning_rate": 0},
        {"head_learning_rate": math.nan},
        {"ema_decay": 1},
        {"train_size": 0},
    ],
)
def test_training_refuses(values: dict[str, Any]) -> None:
    name, value = next(iter(values.items()))
    with pytest.raises(InputError, match=f"expected {name} .*got {value!r}"):
        TrainConfig(**values)


@pytest.mark.parametrize(
    "change", [{"heads": 5}, {"layers": 0}, {"num_labels": 1}, {"pooling": "max"}]
)
def test_model_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        ModelConfig(**{**SHAPE, **change})


def test_model_configuration_survives_json() -> None:
    config = ModelConfig(**SHAPE, attention=AttentionConfig(2.0, 4.0, "norm"))
    assert ModelConfig.from_dict(config.to_dict()) == config
    for broken in ({}, {**config.to_dict(), "surprise": 1}, {**SHAPE, "attention": {"tau": 1}}):
        with pytest.raises(InputError, match="not usable"):
            ModelConfig.from_dict(broken)
