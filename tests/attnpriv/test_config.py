from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from attnpriv.attention import attention_weights
from attnpriv.config import (
    BOUNDED,
    AttentionConfig,
    ModelConfig,
    PrivacyConfig,
    Trainable,
    TrainConfig,
    parse_trainable,
)
from attnpriv.errors import InputError
from attnpriv.guarantees import lift_bound

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


def test_the_preset_bounds_four_keys_of_32_by_a_lift_of_four_and_no_less() -> None:
    sharp = torch.full((1, 1, 32, 1), -100.0)
    sharp[:, :, :4] = 100.0
    weights = attention_weights(torch.ones(1, 1, 1, 1), sharp, None, BOUNDED)
    lift = float(weights[..., :4].sum()) * 32 / 4
    bound = lift_bound(BOUNDED.logit_bound, BOUNDED.temperature, 32, 4)
    assert lift == pytest.approx(bound, rel=1e-6)
    assert 3.9 < bound <= 4


@pytest.mark.parametrize(
    ("sampler", "reason"),
    [
        ("shuffled", "up to 10 times"),
        ("weighted", "each row has its own sampling rate"),
        ("drop_last", "the rows of the last one are left out"),
        ("fixed", "without replacement"),
    ],
)
def test_unsound_samplers_are_refused_with_the_reason(sampler: Any, reason: str) -> None:
    with pytest.raises(InputError, match=f"^expected sampler poisson, got '{sampler}': .*{reason}"):
        PrivacyConfig(1.0, sampler=sampler)


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
        {"epsilon": 1, "noise_multiplier": 0.0},
        {"epsilon": 1, "noise_multiplier": math.inf},
        {"epsilon": 1, "clipping": "none"},
        {"epsilon": 1, "clipping_engine": "functorch"},
        {"epsilon": 1, "sampler": "sequential"},
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
        {"trainable": "last:1:lora:1"},
        {"trainable": "tail"},
        {"trainable": "head:1"},
        {"trainable": "lora"},
        {"trainable": "lora:0"},
        {"trainable": "lora:x"},
        {"trainable": "lora:-1"},
        {"trainable": "lora:4:last"},
        {"trainable": "lora:4:last:0"},
        {"trainable": "lora:4:head"},
        {"steps": 0},
        {"batch_size": 0},
        {"micro_batch_tokens": 0},
        {"warmup": 1.0},
        {"decay": "steps"},
        {"precision": "float16"},
        {"learning_rate": 0},
        {"head_learning_rate": math.nan},
        {"ema_decay": 1},
        {"train_size": 0},
        {"train_size": 0.0},
        {"train_size": 1.0},
        {"train_size": 1.5},
        {"train_size": math.nan},
    ],
)
def test_training_refuses(values: dict[str, Any]) -> None:
    name, value = next(iter(values.items()))
    with pytest.raises(InputError, match=f"expected {name} .*got {value!r}"):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("head", Trainable("head")),
        ("bias", Trainable("bias")),
        ("last:2", Trainable("last", last=2)),
        ("lora:8", Trainable("lora", rank=8)),
        ("lora:16:last:3", Trainable("lora", rank=16, last=3)),
        ("all", Trainable("all")),
    ],
)
def test_what_to_train_is_read(value: str, expected: Trainable) -> None:
    assert parse_trainable(value) == expected
    assert TrainConfig(trainable=value).trainable == value


@pytest.mark.parametrize(
    "change",
    [
        {"heads": 5},
        {"layers": 0},
        {"num_labels": 1},
        {"pooling": "max"},
        {"relative_positions": True, "attention": AttentionConfig(1.0, 1.0, "norm")},
        {"relative_positions": True, "attention": AttentionConfig(score="additive")},
    ],
)
def test_model_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        ModelConfig(**{**SHAPE, **change})


def test_model_configuration_survives_json() -> None:
    config = ModelConfig(**SHAPE, attention=AttentionConfig(2.0, 4.0, "norm"), share_layers=True)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    for broken in ({}, {**config.to_dict(), "surprise": 1}, {**SHAPE, "attention": {"tau": 1}}):
        with pytest.raises(InputError, match="not usable"):
            ModelConfig.from_dict(broken)


def test_a_configuration_from_before_the_last_options_still_loads() -> None:
    config = ModelConfig(**SHAPE)
    saved = config.to_dict()
    assert saved.pop("share_layers") is False
    assert saved.pop("relative_positions") is False
    assert ModelConfig.from_dict(saved) == config


HUGE = (math.nan, math.inf, -math.inf, -1, 1e38, 10**400, "1", True)


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize(
    "name", ["learning_rate", "head_learning_rate", "ema_decay", "warmup", "steps", "seed"]
)
def test_no_number_of_a_training_is_beyond_what_it_computes_with(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"expected {name} "):
        TrainConfig(**{name: value})


@pytest.mark.parametrize("value", HUGE)
@pytest.mark.parametrize("name", ["delta", "max_grad_norm", "noise_multiplier", "noise_seed"])
def test_no_number_of_the_privacy_is_beyond_what_it_computes_with(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"expected {name} "):
        PrivacyConfig(**{"epsilon": 3.0, name: value})


@pytest.mark.parametrize("values", [{"clip": 1e38}, {"temperature": 1e-45}])
def test_no_number_of_a_model_is_beyond_float32(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"expected {next(iter(values))} >= 1e-06 and at most"):
        ModelConfig(**SHAPE, attention=AttentionConfig(**values))


def test_the_largest_and_smallest_numbers_that_are_accepted() -> None:
    config = TrainConfig(seed=2**63 - 1, learning_rate=1e6, head_learning_rate=1e-300, steps=10**9)
    assert config.seed == 2**63 - 1
    assert PrivacyConfig(epsilon=1e-9, delta=1e-300, max_grad_norm=1e-6, noise_seed=0).delta > 0
    # In float32, noise on a sum that was clipped to less would round to none.
    with pytest.raises(InputError, match="expected max_grad_norm >= 1e-06"):
        PrivacyConfig(epsilon=1.0, max_grad_norm=1e-45)
