"""Processes that share a model too: what one process trains, from less memory each."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnpriv.config import ModelConfig, PrivacyConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.shapes import CnnConfig
from attnpriv.models.text import TextClassifier
from attnpriv.training.checkpoint import CHECKPOINT, work_path
from attnpriv.training.sharding import check_shardable
from tests.attnpriv.training.test_processes import (
    LOST,
    SEEDED,
    STEPS,
    assert_same_run,
    end,
    torchrun,
)

TEXTS = ModelConfig(
    encoder="scratch", vocab_size=11, dim=4, layers=1, heads=2, hidden_dim=5, max_length=7,
    num_labels=2,
)  # fmt: skip
CNN = CnnConfig(encoder="cnn", height=8, width=8, channels=1, patch=2, num_labels=2)


def gradient_of_one_step(trainings: Any, out: Path, **options: Any) -> dict[str, torch.Tensor]:
    """Adam's average of the gradients is, after one step, a tenth of the gradient."""
    # The second stretch of two steps begins with saving the state after the first.
    options |= {"config": {"steps": 2}, "interrupt_at": 2}
    if options.get("shard"):
        first, *others = trainings.start_together(out, **options)
    else:
        first, others = trainings.start(out, **options), []
    assert [child.wait() for child in (first, *others)] == [130, *[2] * len(others)], first.errors
    state = load_file(work_path(out) / CHECKPOINT)
    return {name: 10 * value for name, value in state.items() if name.endswith("exp_avg")}


@pytest.mark.parametrize(
    ("count", "privacy"),
    [
        pytest.param(3, SEEDED, id="3-private"),
        pytest.param(2, SEEDED, marks=pytest.mark.exhaustive, id="2-private"),
        pytest.param(2, None, marks=pytest.mark.exhaustive, id="2-plain"),
        pytest.param(3, None, marks=pytest.mark.exhaustive, id="3-plain"),
    ],
)
def test_the_noised_gradient_of_one_step(
    trainings: Any, tmp_path: Path, privacy: Any, count: int
) -> None:
    expected = gradient_of_one_step(trainings, tmp_path / "alone", privacy=privacy)
    gradients = gradient_of_one_step(
        trainings, tmp_path / "sharded", privacy=privacy, shard=True, count=count
    )
    assert gradients.keys() == expected.keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.exhaustive
@pytest.mark.parametrize("trainable", ["last:1", "lora:2", "bias"])
@pytest.mark.parametrize("privacy", [SEEDED, None], ids=["private", "plain"])
def test_parts_of_the_model(trainings: Any, tmp_path: Path, trainable: str, privacy: Any) -> None:
    alone = trainings.start(tmp_path / "alone" / "run", trainable, privacy=privacy)
    together = trainings.start_together(
        tmp_path / "run", trainable, privacy=privacy, shard=True, count=3
    )
    end([alone, *together])
    assert_same_run(tmp_path / "run", tmp_path / "alone" / "run")


@pytest.mark.exhaustive
@pytest.mark.parametrize("privacy", [SEEDED, None], ids=["private", "plain"])
def test_empty_shares_and_empty_batches(trainings: Any, tmp_path: Path, privacy: Any) -> None:
    """At an expected batch of one, most processes have no row of most batches."""
    config = {"batch_size": 1, "steps": 8}
    trainings.server.account(**config, privacy=SEEDED)
    options = {"privacy": privacy, "config": config}
    alone = trainings.start(tmp_path / "alone" / "run", **options)
    together = trainings.start_together(tmp_path / "run", shard=True, count=3, **options)
    end([alone, *together])
    assert_same_run(tmp_path / "run", tmp_path / "alone" / "run")


@pytest.mark.exhaustive
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_others_and_other_numbers_go_on(
    trainings: Any, uninterrupted: Any, tmp_path: Path, lost: int
) -> None:
    out = tmp_path / "run"
    together = trainings.start_together(out, shard=True, count=3, reports=True)
    with together[0].steps() as steps:
        begun = [next(steps) for _ in range(5)]
        together[lost].send(signal.SIGKILL)
        begun += steps
    for rank, child in enumerate(together):
        assert child.wait(at_most=20) == (-signal.SIGKILL if rank == lost else 2)
        assert rank == lost or LOST in child.errors
        assert "Traceback" not in child.errors
    assert 5 <= begun[-1] <= trainings.spent(out)
    assert trainings.saved(out) <= begun[-1]
    assert not out.exists()
    two = trainings.start_together(out, shard=True, resume=True, interrupt_at=15)
    assert [child.wait() for child in two] == [130, 2]
    alone = trainings.start(out, resume=True, interrupt_at=21)
    assert alone.wait() == 130
    end(trainings.start_together(out, shard=True, count=3, resume=True))
    assert_same_run(out, uninterrupted())


@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_copies_of_records_and_half_precision(
    trainings: Any, tmp_path: Path, precision: str
) -> None:
    config = {
        "precision": precision,
        "augmentation": "deletion:0.3",
        "augmentation_multiplicity": 2,
        "steps": 4,
    }
    trainings.server.account(steps=4, batch_size=30, privacy=SEEDED)
    alone = trainings.start(tmp_path / "alone" / "run", privacy=SEEDED, config=config)
    together = trainings.start_together(tmp_path / "run", privacy=SEEDED, config=config, shard=True)
    end([alone, *together])
    assert_same_run(tmp_path / "run", tmp_path / "alone" / "run")


@pytest.mark.exhaustive
def test_torchrun_shares_a_model(trainings: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*torchrun(trainings, out), "--shard"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert_same_run(out, trainings.run(tmp_path / "alone" / "run", steps=STEPS).path)


def test_one_process_has_nobody_to_share_a_model_with(trainings: Any, tmp_path: Path) -> None:
    child = trainings.command(tmp_path / "run", "--shard")
    assert child.wait() == 2
    assert "--shard shares a model among several processes, and there is one" in child.errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": TrainConfig(trainable="head")}, "is of no use for --trainable head"),
        ({"privacy": PrivacyConfig(3.0, clipping_engine="hooks")}, "book_keeping, got hooks"),
        ({"gradient_canaries": True}, "cannot be used with --canaries and an ε"),
        ({"taught": True}, "cannot be used with --distil-from"),
        ({"model": CnnClassifier(CNN)}, "transformer blocks, which cnn is not"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, Any], message: str) -> None:
    training: dict[str, Any] = {
        "model": TextClassifier(TEXTS),
        "config": TrainConfig(trainable="all"),
        "privacy": PrivacyConfig(3.0),
        "taught": False,
        "gradient_canaries": False,
    }
    check_shardable(**training)
    with pytest.raises(InputError, match=f"^--shard .*{message}"):
        check_shardable(**training | changes)
