"""What a frozen encoder makes of a data set is computed once, kept whole, and means the same."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.runs.folder import WEIGHTS, load_run
from attnpriv.training import train
from attnpriv.training.features import FeatureFolder

QUICK = TrainConfig(trainable="head", steps=4, batch_size=60)


def trained(data: Dataset, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    options: dict[str, Any] = {
        "attention": AttentionConfig(),
        "config": QUICK,
        "privacy": PrivacyConfig(epsilon=3.0, noise_seed=0),
    }
    train(data, out, **{**options, **changes})
    return load_file(out / WEIGHTS)


@pytest.mark.parametrize("canaries", [None, 30])
def test_training_with_kept_features_is_the_same_up_to_rounding(
    tickets: Dataset, tmp_path: Path, canaries: int | None
) -> None:
    kept = trained(
        tickets, tmp_path / "kept", features=FeatureFolder(tmp_path / "f"), canaries=canaries
    )
    anew = trained(tickets, tmp_path / "anew", canaries=canaries)
    for name, tensor in anew.items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_second_training_reads_what_the_first_computed(tickets: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    first = trained(tickets, tmp_path / "one", features=FeatureFolder(folder))
    (file,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.stat().st_mtime_ns
    again = trained(tickets, tmp_path / "two", features=FeatureFolder(folder))
    assert [*folder.iterdir()] == [file]
    assert file.stat().st_mtime_ns == written
    assert all(torch.equal(again[name], tensor) for name, tensor in first.items())


def test_the_head_shares_features_and_nothing_else_does(tickets: Dataset, tmp_path: Path) -> None:
    trained(tickets, tmp_path / "run")
    run, folder = load_run(tmp_path / "run"), FeatureFolder(tmp_path / "features")

    def files(data: Dataset) -> int:
        folder.of(run.model, run.modality, data)
        return len([*folder.path.iterdir()])

    assert files(tickets) == 1
    torch.nn.init.ones_(run.model.head.weight)
    assert files(tickets) == 1
    assert files(tickets.subset(range(200))) == 2
    with torch.no_grad():
        next(run.model.blocks.parameters()).mul_(1.5)
    assert files(tickets) == 3
    run.model.config = replace(run.model.config, attention=AttentionConfig(temperature=2.0))
    assert files(tickets) == 4


def test_a_damaged_file_is_refused(tickets: Dataset, tmp_path: Path) -> None:
    features = FeatureFolder(tmp_path / "features")
    trained(tickets, tmp_path / "one", features=features)
    (file,) = features.path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="delete it, and they are computed again"):
        trained(tickets, tmp_path / "two", features=features)
    assert not (tmp_path / "two").exists()


def test_where_more_than_the_head_is_trained_nothing_is_kept(
    tickets: Dataset, tmp_path: Path
) -> None:
    features = FeatureFolder(tmp_path / "features")
    trained(tickets, tmp_path / "run", features=features, config=replace(QUICK, trainable="last:1"))
    assert not features.path.exists()
