"""A detector is trained, evaluated and certified; what is for classifiers refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.models.detector import DetectorModel
from attnpriv.runs.folder import load_run
from attnpriv.training import train

SMALL = "scenes:rows=40"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("detector") / "found"
    train(
        load_dataset(SMALL),
        out,
        encoder="detector",
        attention=AttentionConfig(clip=2.0),
        config=TrainConfig(trainable="all", steps=2, batch_size=8),
        privacy=PrivacyConfig(epsilon=8.0, delta=1e-3),
    )
    return out


def test_a_private_detector_is_evaluated_and_certified(run: Path, command: Any) -> None:
    loaded = load_run(run, detectors=True)
    assert isinstance(loaded.model, DetectorModel)
    assert (loaded.card.private, loaded.card.encoder) == (True, "detector")
    assert loaded.card.metrics.held_out.accuracy in (0, *(n / 20 for n in range(20)))
    evaluated = command("evaluate", run, "--data", SMALL)
    assert evaluated.code == 0, evaluated.err
    assert "mAP@50 0." in evaluated.out
    certified = command("certify", run)
    assert certified.code == 0, certified.err
    assert "a row of 64 keys" in certified.out
    assert load_run(run, detectors=True).split(load_dataset(SMALL)).trained


def test_what_is_for_classifiers_refuses_it(run: Path, command: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds a detector of objects"):
        load_run(run)
    audited = command("audit", run, "--data", SMALL, "--out", tmp_path / "report")
    assert audited.code == 2
    assert "expected a classifier here" in " ".join(audited.err.split())
    scored = command("evaluate", run, "--data", "digits:rows=20")
    assert (scored.code, "expected data with objects" in scored.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", SMALL), "expected model detector for scenes, got 'scratch'"),
        (("--data", SMALL, "--model", "vit"), "expected model detector for scenes, got 'vit'"),
        (("--data", "digits", "--model", "detector"), "expected data with objects for detector"),
        (
            ("--data", SMALL, "--model", "detector", "--canaries", 2),
            "expected no augmentation, canaries or teacher with detector",
        ),
    ],
)
def test_options_that_do_not_go_together(
    command: Any, tmp_path: Path, options: tuple[Any, ...], message: str
) -> None:
    outcome = command("train", *options, "--epsilon", "none", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())
