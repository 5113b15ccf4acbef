"""Shadow models that other processes train are those that one process trains."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from attnpriv.audit.leakage.shadow_folder import read_shadows
from attnpriv.config import TrainConfig
from attnpriv.data import Dataset
from attnpriv.jobs import ProcessPool
from attnpriv.runs.folder import FILES, Run, load_run
from attnpriv.runs.packing import FolderOfRun
from attnpriv.shadows import train_shadows
from attnpriv.shadows.elsewhere import Made, ShadowJob
from attnpriv.shadows.making import Shadows
from attnpriv.shadows.recipe import recipe_of
from attnpriv.training import train
from tests.attnpriv.training.conftest import write_encoder


@pytest.mark.exhaustive
def test_another_process_goes_on_and_makes_the_same_shadows(
    tmp_path: Path, frozen_run: Run, tickets: Dataset, shadows: Path
) -> None:
    out = tmp_path / "shadows"
    shutil.copytree(shadows, out)
    for number in (1, 3, 6):
        (out / "answers" / f"{number:04d}.safetensors").unlink()
    shutil.rmtree(out / "runs" / "0006")
    (out / "runs" / ".0003.partial").mkdir()  # of a training that was interrupted
    (out / ".unfinished").mkdir()  # of other processes that were killed
    said: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        said[stage] = done, total

    train_shadows(
        frozen_run,
        tickets,
        out,
        models=8,
        resume=True,
        progress=progress,
        executor=ProcessPool(1),
    )
    assert read_shadows(out).sha256 == read_shadows(shadows).sha256
    for path in (shadows / "runs").rglob("*"):
        same = out / path.relative_to(shadows)
        assert path.is_dir() or path.read_bytes() == same.read_bytes()
        assert path.stat().st_mode == same.stat().st_mode
    assert sorted(path.name for path in out.iterdir()) == ["answers", "runs", "settings.json"]
    assert not [path for path in (out / "runs").iterdir() if path.name.startswith(".")]
    assert said["shadow models"] == (8, 8)
    assert said["training"] == (21, 21)


def test_a_machine_without_our_files_makes_the_same_shadow(
    tmp_path: Path, tickets: Dataset
) -> None:
    """The run trained an encoder that came from a folder; neither is where it was."""
    (tmp_path / "mine").mkdir()
    encoder = write_encoder(tmp_path / "mine", tickets.texts)
    config = TrainConfig(trainable="all", steps=2)
    train(tickets, tmp_path / "run", encoder=str(encoder), config=config, privacy=None)
    run = load_run(tmp_path / "run")
    samples = run.modality.read(tickets.records)
    here = Shadows(recipe_of(run, str(encoder)), tickets, samples, 0, None)
    here.train(5, tmp_path / "0005", lambda *_: None)
    log_odds, inside = here.answers(5, tmp_path / "0005")

    job = ShadowJob(FolderOfRun.of(run), str(encoder), tickets, 0, None, tmp_path / "ours")
    sent = pickle.dumps(job.packed())
    shutil.rmtree(encoder)
    shutil.rmtree(run.path)
    made = Made.from_bytes(pickle.loads(sent).begin()(5, lambda *_: None))
    assert np.array_equal(made.log_odds, log_odds)
    assert np.array_equal(made.inside, inside)
    files = {path.name: path.read_bytes() for path in (tmp_path / "0005").iterdir()}
    assert made.files == {name: files[name] for name in FILES if name in files}
