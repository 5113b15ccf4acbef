"""Copies of records: what they are, and that a record and its copies count as one record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attnpriv.config import (
    Augmentation,
    ModelConfig,
    PrivacyConfig,
    TrainConfig,
    parse_augmentation,
)
from attnpriv.data import Dataset, Encoding, HashTokenizer
from attnpriv.data.image.patches import Patches
from attnpriv.data.text import Text
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.clipping import make_engine
from attnpriv.runs.folder import load_run
from attnpriv.shadows.recipe import recipe_of
from attnpriv.training import train
from attnpriv.training.augmentation import copies_of
from attnpriv.training.batches import HeadRecords, Records, SampleRecords, UpperRecords
from attnpriv.training.verification import verify_trainer

C = 0.1
COPIES = 3
DELETION = Augmentation("deletion", 0.4)
TEXT = Text(HashTokenizer(64), 16)
TEXTS = [" ".join(f"word{(i * 7 + j) % 31}" for j in range(1 + i % 7)) for i in range(11)]
LABELS = torch.arange(11) % 3
SAMPLES = copies_of(TEXT, TEXT.read(TEXTS), DELETION, COPIES, seed=0)


def classifier(trainable: str) -> TextClassifier:
    torch.manual_seed(0)
    model = TextClassifier(
        ModelConfig(
            encoder="scratch",
            vocab_size=64,
            dim=12,
            layers=3,
            heads=3,
            hidden_dim=7,
            max_length=16,
            num_labels=3,
        )
    )
    nn.init.normal_(model.head.weight)
    model.select_trainable(trainable)
    return model


def records_of(form: str, model: TextClassifier) -> Records:
    passes = (model, TEXT, SAMPLES, LABELS, 100)
    match form:
        case "head":
            features = torch.cat([features_of(model, each) for each in SAMPLES])
            return HeadRecords(model.head, features, LABELS, COPIES)
        case "upper":
            return UpperRecords(model, 2, *passes[1:], copies=COPIES)
        case _:
            return SampleRecords(*passes, copies=COPIES)


@torch.no_grad()
def features_of(model: TextClassifier, sample: Encoding) -> Tensor:
    inputs = TEXT.collate([sample])
    return model.run(model.embed(inputs.values), inputs.mask).features


def by_hand(model: TextClassifier, batch: list[int]) -> Tensor:
    """Each copy by itself: mean of the gradients of a record's copies, clipped, and summed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in trained))
    for record in batch:
        mean = torch.zeros_like(total)
        for copy in SAMPLES[record * COPIES : (record + 1) * COPIES]:
            inputs = TEXT.collate([copy])
            loss = nn.functional.cross_entropy(
                model(inputs.values, inputs.mask), LABELS[record : record + 1]
            )
            parts = torch.autograd.grad(loss, trained)
            mean += torch.cat([part.flatten() for part in parts]) / COPIES
        total += mean * min(1.0, C / float(mean.norm()))
    return total


@pytest.mark.parametrize(
    ("form", "trainable"), [("head", "head"), ("samples", "all"), ("upper", "last:1")]
)
def test_the_mean_gradient_of_a_record_and_its_copies_is_clipped(form: str, trainable: str) -> None:
    model, batch = classifier(trainable), [9, 0, 4, 6, 10]
    expected = by_hand(model, batch)
    records = records_of(form, model)
    engine = make_engine("book_keeping", records.module, C, "flat")
    totals = {p: torch.zeros_like(p) for p in records.module.parameters() if p.requires_grad}
    for losses_of in records.losses(torch.tensor(batch)):
        engine.accumulate(losses_of(engine.module), totals, records.copies)  # type: ignore[call-arg]
    found = torch.cat([total.flatten() for total in totals.values()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert expected.norm() > C  # several records, and none of them within the clip by itself


def test_copies_follow_from_the_record_and_the_seed_alone() -> None:
    read = TEXT.read(TEXTS)
    alone = copies_of(TEXT, read[6:7], DELETION, COPIES, seed=0)
    assert SAMPLES[6 * COPIES : 7 * COPIES] == alone
    assert alone[0] == read[6]
    assert copies_of(TEXT, read[6:7], DELETION, COPIES, seed=1) != alone
    assert copies_of(TEXT, read, None, 1, seed=0) == read


def test_tokens_are_left_out_with_their_chance_and_the_rest_keeps_its_places() -> None:
    (read,) = TEXT.read([" ".join("abcdefghijklmn")])
    copies = copies_of(TEXT, [read], DELETION, 400, seed=0)[1:]
    pairs = set(zip(read.ids, read.places, strict=True))
    for each in copies:
        assert set(zip(each.ids, each.places, strict=True)) <= pairs
        assert (each.ids[0], each.ids[-1]) == (read.ids[0], read.ids[-1])
    left = np.mean([(each.size - 2) / (read.size - 2) for each in copies])
    assert left == pytest.approx(0.6, abs=0.03)


def test_images_are_moved_and_black_comes_into_sight() -> None:
    modality = Patches(5, 7, 3, 2)
    image = np.random.default_rng(0).integers(1, 256, (5, 7, 3), dtype=np.uint8)
    (sample,) = modality.read([image])
    seen = set()
    for each in copies_of(modality, [sample], Augmentation("shift", 1), 60, seed=0)[1:]:
        moves = [
            (down, right)
            for down in (-1, 0, 1)
            for right in (-1, 0, 1)
            if np.array_equal(modality.read([shifted(image, down, right)])[0].values, each.values)
        ]
        seen.update(moves)
        assert len(moves) == 1
        assert each.places == sample.places
    assert len(seen) == 9


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return padded[1 - down : 6 - down, 1 - right : 8 - right]


def test_epsilon_and_noise_are_those_without_copies(tickets: Dataset, tmp_path: Path) -> None:
    privacy = PrivacyConfig(epsilon=3.0, delta=1e-3, accountant="rdp", noise_seed=0)
    cards = []
    for augmentation in (None, "deletion:0.3"):
        config = TrainConfig(steps=2, augmentation=augmentation)
        out = tmp_path / str(augmentation)
        cards.append(train(tickets, out, config=config, privacy=privacy).card)
    plain, copied = cards
    assert plain.privacy is not None
    assert copied.privacy is not None
    assert copied.epsilon == plain.epsilon
    assert copied.privacy.noise_multiplier == plain.privacy.noise_multiplier
    assert copied.training is not None
    assert copied.training.augmentation == "deletion:0.3"
    assert copied.training.augmentation_multiplicity == 4
    run = load_run(tmp_path / "deletion:0.3")
    assert "3 copies of each record" in (run.path / "model_card.md").read_text(encoding="utf-8")
    recipe = recipe_of(run)
    assert (recipe.config.augmentation, recipe.config.multiplicity) == ("deletion:0.3", 4)
    assert not torch.equal(run.model.head.weight, load_run(tmp_path / "None").model.head.weight)


def test_a_training_with_copies_passes_the_replay_audit() -> None:
    found = verify_trainer(
        config=TrainConfig(trainable="head", augmentation="deletion:0.5"),
        privacy=PrivacyConfig(epsilon=3.0, noise_multiplier=9.0),
        rows=500,
    )
    assert [check.name for check in found.checks if not check.passed] == []


@pytest.mark.parametrize(
    "value",
    ["deletion", "deletion:0", "deletion:1", "deletion:x", "deletion:nan", "shift:0", "shift:1.5",
     "noise:1", ""],
)  # fmt: skip
def test_what_is_no_augmentation_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="expected augmentation to be deletion:RATE"):
        parse_augmentation(value)
    with pytest.raises(InputError, match="expected augmentation to be deletion:RATE"):
        TrainConfig(augmentation=value)


@pytest.mark.parametrize("settings", [{"augmentation": "deletion:0.1"}, {}], ids=["one", "none"])
def test_a_multiplicity_that_makes_no_copies_is_refused(settings: dict[str, str]) -> None:
    multiplicity = 1 if settings else 4
    with pytest.raises(InputError, match="of at least 2, and an augmentation"):
        TrainConfig(augmentation_multiplicity=multiplicity, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--augmentation", "shift:2"), "expected augmentation deletion:RATE for texts"),
        (("--augmentation-multiplicity", "4"), "of at least 2, and an augmentation"),
        (
            ("--augmentation", "deletion:0.2", "--clipping-engine", "ghost"),
            "expected clipping engine book_keeping with augmentation",
        ),
    ],
)
def test_the_command_refuses_what_does_not_go_together(
    tmp_path: Path, command: Any, options: tuple[str, ...], message: str
) -> None:
    usual = ("train", "--data", "tickets:rows=40", "--epsilon", 3, "--delta", 1e-3, "--steps", 1)
    outcome = command(*usual, "--out", tmp_path / "run", *options)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_images_take_no_deletion_and_no_shift_out_of_sight() -> None:
    modality = Patches(5, 7, 3, 2)
    samples = modality.read([np.zeros((5, 7, 3), np.uint8)])
    with pytest.raises(InputError, match="expected augmentation shift:PIXELS for images"):
        copies_of(modality, samples, DELETION, 2, seed=0)
    with pytest.raises(InputError, match="expected a shift of less than 5 pixels, got shift:5"):
        copies_of(modality, samples, Augmentation("shift", 5), 2, seed=0)
