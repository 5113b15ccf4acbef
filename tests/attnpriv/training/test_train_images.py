"""Images go through the same trainer, run folder and commands as texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.models.cnn import CnnClassifier
from attnpriv.models.scattering import ScatteringClassifier
from attnpriv.models.vision import VisionClassifier
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from attnpriv.shadows.recipe import recipe_of
from attnpriv.training import train
from attnpriv.training.preparation import seeded

SMALL = "digits:rows=200"
STEPS = ("--steps", 3, "--batch-size", 40, "--delta", 1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("images") / "private"
    train(
        load_dataset(SMALL),
        out,
        attention=AttentionConfig(clip=2.0),
        config=TrainConfig(trainable="all", steps=3, batch_size=40),
        privacy=PrivacyConfig(epsilon=3.0, delta=1e-3),
        encoder="vit",
    )
    return out


def test_a_run_folder_holds_what_was_trained(run: Path) -> None:
    loaded, data = load_run(run), load_dataset(SMALL)
    assert isinstance(loaded.model, VisionClassifier)
    assert loaded.kind == "image"
    assert not (run / "tokenizer.json").exists()
    split = loaded.split(data)
    assert sorted(split.trained + split.held_out) == list(range(200))
    held_out = data.subset(split.held_out)
    guessed = predict_probabilities(loaded, held_out.records).argmax(1)
    right = float((guessed == held_out.labels).mean())
    assert loaded.card.metrics.held_out.accuracy == pytest.approx(right)
    with pytest.raises(InputError, match="expected a run that reads texts, got 'private'"):
        _ = loaded.tokenizer


def test_the_card_speaks_of_images(run: Path) -> None:
    card = load_run(run).card
    assert card.encoder == "vit"
    assert card.private
    assert card.privacy is not None
    assert card.privacy.unit == "one training record (an image with its label)"
    assert "images_sent_to_the_model" in card.limits
    for text in (card.statement, *card.limits.values()):
        assert "token" not in text
        assert "text" not in text.replace("texts of", "")
    assert "images that are sent to the model" in card.statement


def test_no_pixel_of_the_data_is_in_the_run_folder(run: Path) -> None:
    image = load_dataset(SMALL).records[0].tobytes()
    for file in run.iterdir():
        assert image not in file.read_bytes()


def test_the_same_seeds_give_the_same_bits(run: Path, tmp_path: Path) -> None:
    states = []
    for name in ("one", "two"):
        train(
            load_dataset(SMALL),
            tmp_path / name,
            config=TrainConfig(trainable="all", steps=3, batch_size=40),
            privacy=PrivacyConfig(epsilon=3.0, delta=1e-3, noise_seed=5),
        )
        states.append(load_run(tmp_path / name).model.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_shadow_model_starts_as_the_run_did(run: Path) -> None:
    """The same shape, and the initial weights of its seed."""
    loaded = load_run(run)
    recipe = recipe_of(loaded)
    with seeded(7):
        one = recipe.build()
    with seeded(7):
        other = recipe.build()
    assert one.model.config == loaded.model.config
    assert one.modality == loaded.modality
    states = one.model.state_dict(), other.model.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_training_learns(tmp_path: Path) -> None:
    config = TrainConfig(trainable="all", steps=60, batch_size=100, learning_rate=3e-3)
    result = train(load_dataset("digits:rows=600"), tmp_path / "run", config=config, privacy=None)
    assert result.card.metrics.held_out.accuracy > 0.6


def test_the_commands_work_on_images(command: Any, run: Path, tmp_path: Path) -> None:
    trained = command(
        "train", "--data", SMALL, "--model", "vit", "--epsilon", 3, *STEPS, "--out", tmp_path / "r"
    )
    assert trained.code == 0, trained.err
    assert "differential privacy" in trained.out
    evaluated = command("evaluate", run, "--data", SMALL)
    assert evaluated.code == 0, evaluated.err
    assert "accuracy" in evaluated.out
    certified = command("certify", run)
    assert certified.code == 0, certified.err
    assert "a row of 16 keys" in certified.out


def test_data_is_described_and_no_image_printed(command: Any) -> None:
    shown = command("data", "show", "digits:rows=20,beside=1")
    assert shown.code == 0, shown.err
    assert "20 gold boxes of personal data" in shown.out
    assert "no gold boxes" in command("data", "show", "digits:rows=20").out
    assert command("data", "show", "digits:rows=20", "--rows", 1).code == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("train", "--data", SMALL, "--model", "minilm"),
            "expected one of the models vit, cnn, cnn-se, cnn-cbam, scattering, detector for",
        ),
        (("train", "--data", "tickets:rows=50", "--model", "vit"), "vit, which reads images"),
        (("train", "--data", SMALL, "--pooling", "cls"), "expected pooling mean, layers or places"),
    ],
)
def test_options_that_do_not_go_together(
    command: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    outcome = command(*arguments, "--epsilon", "none", "--out", tmp_path / "run")
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_a_run_of_images_refuses_texts(command: Any, run: Path) -> None:
    outcome = command("evaluate", run, "--data", "tickets:rows=50")
    assert outcome.code == 2
    assert "expected images, got tickets, which holds texts" in " ".join(outcome.err.split())


def test_a_convolutional_network_is_trained_and_certified(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "cnn"
    options = ("--model", "cnn-cbam", "--clip", 2, "--trainable", "all", "--epsilon", 3)
    assert command("train", "--data", SMALL, *options, *STEPS, "--out", out).code == 0
    loaded = load_run(out)
    assert isinstance(loaded.model, CnnClassifier)
    assert (loaded.card.encoder, loaded.card.private) == ("cnn-cbam", True)

    certified = command("certify", out)
    assert "blocks.1.spatial" in certified.out
    assert "gates on 64 places, 4 of them sensitive" in certified.out
    norm = command(
        "train", "--data", SMALL, *options, "--clip-mode", "norm", "--out", tmp_path / "b"
    )
    assert (norm.code, "expected clip mode clamp or tanh" in norm.err) == (2, True)


def test_a_scattering_transform_gets_a_private_head(command: Any, tmp_path: Path) -> None:
    out = tmp_path / "scattering"
    options = ("--data", "digits:rows=600", "--model", "scattering", "--head-learning-rate", 0.3)
    steps = ("--steps", 30, "--batch-size", 300, "--delta", 1e-3)
    trained = command("train", *options, *steps, "--epsilon", 8, "--out", out)
    assert trained.code == 0, trained.err
    loaded = load_run(out)
    assert isinstance(loaded.model, ScatteringClassifier)
    assert loaded.card.private
    assert loaded.card.metrics.held_out.accuracy > 0.7
    assert "accuracy" in command("evaluate", out, "--data", "digits:rows=600").out
    certified = command("certify", out)
    assert certified.code == 2
    assert "which has neither: scattering" in " ".join(certified.err.split())
    clipped = command("train", *options, "--clip", 2, "--epsilon", "none", "--out", tmp_path / "b")
    assert (clipped.code, "has no attention" in clipped.err) == (2, True)
