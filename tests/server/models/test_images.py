"""A run that reads images is refused before anything of it is served."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpriv.config import TrainConfig
from attnpriv.data import load_dataset
from attnpriv.errors import RunFolderError
from attnpriv.training import train
from attnpriv_server.models.folders import Place, read_place


def test_a_run_of_images_is_refused_in_one_sentence(tmp_path: Path) -> None:
    config = TrainConfig(trainable="head", steps=1, batch_size=10)
    train(load_dataset("digits:rows=50"), tmp_path / "digits", config=config, privacy=None)
    with pytest.raises(RunFolderError) as refused:
        read_place(tmp_path, Place("digits", "1", tmp_path / "digits"))
    assert str(refused.value) == (
        f"refusing {tmp_path / 'digits'}: it reads images, and a server answers texts alone: "
        "attnpriv evaluate, certify and audit work on such a run"
    )
