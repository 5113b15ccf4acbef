from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, PretrainedTokenizer, Span, Texts
from attnpriv.data.splits import split_rows, split_rule
from attnpriv.errors import InputError
from attnpriv.models.pretrained import load_pretrained
from attnpriv.privacy import epsilon_spent
from attnpriv.privacy.sampling import poisson_batch
from attnpriv.randomness import StepKeys, Stream
from attnpriv.runs.folder import TOKENIZER, WEIGHTS, load_run
from attnpriv.training import TrainingResult, train
from tests.attnpriv.models.encoders import random_encoder

ROWS = 241  # of the 300 tickets, by the rule of seed 0
QUICK = TrainConfig(trainable="head", steps=4, batch_size=60)
PRIVATE = PrivacyConfig(epsilon=3.0, noise_seed=0)


def run_training(dataset: Dataset, out: Path, **changes: Any) -> TrainingResult:
    options: dict[str, Any] = {
        "encoder": "scratch",
        "attention": AttentionConfig(),
        "config": QUICK,
        "privacy": PRIVATE,
    }
    return train(dataset, out, **{**options, **changes})


def ledger_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "privacy_ledger.jsonl").read_text().splitlines()]


def test_card_and_ledger_state_the_mechanism_and_the_target_is_kept(
    tickets: Dataset, tmp_path: Path
) -> None:
    steps_seen = []
    result = run_training(
        tickets, tmp_path / "run", on_step=lambda *values: steps_seen.append(values)
    )
    card = json.loads((tmp_path / "run" / "model_card.json").read_text())
    assert card == result.card.as_written
    assert not card["private"], "its noise seed is known"
    assert "NOISE SEED CHOSEN BY THE USER" in card["warnings"][0]
    assert 2.9 < card["epsilon"] <= 3.0
    privacy = card["privacy"]
    rate = 60 / ROWS
    assert privacy["sample_rate"] == privacy["expected_batch_size"] / ROWS == rate
    assert privacy["steps"] == 4
    assert privacy["epsilon"] == epsilon_spent(privacy["noise_multiplier"], 1e-5, rate, 4)
    assert privacy["epsilon_rdp"] >= privacy["epsilon"]
    entries = [entry for entry in ledger_of(tmp_path / "run") if entry["entry"] == "noised_steps"]
    assert [entry["steps"] for entry in entries] == [1, 2, 3, 4], "each before it was taken"
    assert entries[-1]["epsilon"] == card["epsilon"]
    assert [step for step, _, _ in steps_seen] == [1, 2, 3, 4]
    shown = [epsilon for _, _, epsilon in steps_seen]
    assert shown == sorted(shown)
    for step, _, epsilon in steps_seen:
        assert epsilon >= epsilon_spent(privacy["noise_multiplier"], 1e-5, rate, step)
    assert shown[-1] <= 3.0


def test_what_is_not_covered_is_on_card_and_ledger(private_run: Path) -> None:
    card = load_run(private_run).card
    assert [e["what"] for e in ledger_of(private_run) if e["entry"] == "not_covered"] == list(
        card.not_covered
    )
    assert any("fingerprint" in what for what in card.not_covered)


def test_training_without_privacy_says_so_in_capitals(tiny_run: Path) -> None:
    card = load_run(tiny_run).card
    assert card.private is False
    assert card.epsilon is None
    assert "TRAINED WITHOUT DIFFERENTIAL PRIVACY" in card.statement
    assert "TRAINED WITHOUT DIFFERENTIAL PRIVACY" in card.warnings
    assert any("whole training" in entry.get("what", "") for entry in ledger_of(tiny_run))


def test_one_noise_seed_repeats_and_none_does_not(tickets: Dataset, tmp_path: Path) -> None:
    unseeded = PrivacyConfig(epsilon=3.0)
    weights = [
        (
            run_training(tickets, tmp_path / str(i), privacy=privacy).path / "model.safetensors"
        ).read_bytes()
        for i, privacy in enumerate((PRIVATE, PRIVATE, unseeded, unseeded))
    ]
    assert weights[0] == weights[1]
    assert len(set(weights)) == 3
    unseeded_card = load_run(tmp_path / "2").card
    assert unseeded_card.private
    assert unseeded_card.warnings == ()


def test_training_learns(tickets: Dataset, tmp_path: Path) -> None:
    config = TrainConfig(trainable="all", steps=40)
    result = run_training(tickets, tmp_path / "run", config=config, privacy=None)
    # Ten classes: chance is a tenth.
    assert result.card.metrics.held_out.accuracy > 0.3


def test_no_text_or_span_of_the_data_is_in_the_run_folder(tickets: Dataset, tmp_path: Path) -> None:
    canary = "Zebulon-7731"
    texts = (f"my name is {canary}, please help", *tickets.texts[1:])
    spans = ((Span(11, 11 + len(canary), "PERSON"),), *(tickets.spans or ())[1:])
    data = Texts("tickets", texts, tickets.labels, tickets.label_names, spans)
    run_training(data, tmp_path / "run")
    for path in (tmp_path / "run").iterdir():
        content = path.read_bytes().lower()
        assert canary.lower().encode() not in content
        assert tickets.texts[1][:20].lower().encode() not in content


def one_class(tickets: Dataset) -> Dataset:
    return tickets.subset([i for i, label in enumerate(tickets.labels) if label == 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": TrainConfig(steps=1, batch_size=242)}, "batch_size at most the 241.*got 242"),
        (
            {"config": TrainConfig(steps=1, batch_size=31, train_size=30)},
            "batch_size at most the 30 training rows, got 31",
        ),
        ({"privacy": PrivacyConfig(1.0, delta=1 / 241)}, r"delta below 1/N = 0.00415.*got 0.0041"),
        ({"encoder": "bert-huge"}, "minilm-bounded, words or a folder, got 'bert-huge'"),
        (
            {"config": TrainConfig(trainable="last:9", steps=4, batch_size=60)},
            "at most last:2, got 'last:9'",
        ),
        ({"config": TrainConfig(steps=1, train_size=300)}, "rows to hold out, got 300 of 300 rows"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    tickets: Dataset, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run_training(tickets, tmp_path / "run", **changes)
    assert list(tmp_path.iterdir()) == []


def test_one_class_and_an_existing_folder_are_refused(tickets: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two classes"):
        run_training(one_class(tickets), tmp_path / "run")
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match="exists already"):
        run_training(tickets, tmp_path / "run")


def test_the_card_has_the_temperatures_as_trained(tickets: Dataset, tmp_path: Path) -> None:
    learned = AttentionConfig(2.0, 2.0, "norm", temperature_floor=0.5)
    config = TrainConfig(trainable="last:1", steps=4, batch_size=60, learning_rate=0.1)
    result = run_training(tickets, tmp_path / "run", attention=learned, config=config)
    frozen, trained = result.card.attention.temperatures
    assert frozen == pytest.approx([2.0] * len(frozen), rel=1e-6)
    assert all(tau >= 0.5 and abs(tau - 2.0) > 1e-3 for tau in trained)
    assert load_run(tmp_path / "run").model.temperatures() == [list(frozen), list(trained)]


def test_additive_scores_train_from_scratch_and_not_on_a_pretrained_encoder(
    tickets: Dataset, tmp_path: Path
) -> None:
    additive = AttentionConfig(2.0, 2.0, "tanh", "additive")
    config = TrainConfig(trainable="last:1", steps=4, batch_size=60)
    result = run_training(tickets, tmp_path / "run", attention=additive, config=config)
    assert result.card.attention.score == "additive"
    random_encoder("bert", tmp_path / "bert")
    with pytest.raises(InputError, match="expected score dot_product with an encoder"):
        load_pretrained(tmp_path / "bert", 2, additive)


@pytest.mark.parametrize("label", [10, -1, 99])
def test_a_label_without_a_name_is_refused(tickets: Dataset, label: int) -> None:
    labels = (*tickets.labels[:7], label, *tickets.labels[8:])
    with pytest.raises(InputError, match=rf"labels from 0 to 9, .*labels\[7\] = {label}$"):
        Texts(tickets.name, tickets.texts, labels, tickets.label_names)


def test_given_noise_stops_before_the_step_that_would_exceed_epsilon(
    trainings: Any, tmp_path: Path
) -> None:
    privacy = {"epsilon": 1.7, "noise_multiplier": 1.5, "noise_seed": 0}
    taken: list[float] = []
    run = trainings.run(
        tmp_path / "run",
        "head",
        privacy=privacy,
        on_step=lambda step, steps, epsilon: taken.append(epsilon),
    )
    spent = run.card.privacy
    assert spent.steps == run.card.training.steps == len(taken) < 40
    assert spent.epsilon == taken[-1] <= 1.7
    assert epsilon_spent(1.5, 1e-5, 0.125, len(taken) + 1) > 1.7
    assert ledger_of(run.path)[-1 - len(run.card.not_covered)]["steps"] == len(taken)


def test_a_step_that_is_too_expensive_says_which_noise_would_do(
    trainings: Any, tmp_path: Path
) -> None:
    privacy = {"epsilon": 0.5, "noise_multiplier": 0.3, "noise_seed": 0}
    with pytest.raises(InputError, match="one step with noise multiplier 0.3 spends") as refused:
        trainings.run(tmp_path / "run", "head", privacy=privacy)
    assert list(tmp_path.iterdir()) == []
    found = re.search(r"a noise multiplier of at least ([\d.]+)", str(refused.value))
    assert found
    privacy["noise_multiplier"] = float(found.group(1))
    card = trainings.run(tmp_path / "run", "head", privacy=privacy, steps=1).card
    assert 0.4 < card.epsilon <= 0.5


def batches(steps: int) -> list[list[int]]:
    """The rows that the noise seed 0 draws."""
    keys = StepKeys.from_seed(0)
    streams = (Stream(keys.advance().sampling) for _ in range(steps))
    return [poisson_batch(240, 0.125, stream).tolist() for stream in streams]


@pytest.mark.parametrize("trainable", ["head", "last:1", "all"])
def test_records_without_a_finite_gradient_are_left_out_and_counted(
    trainings: Any, tickets: Dataset, tmp_path: Path, trainable: str
) -> None:
    """One word of the encoder's vocabulary is not a number."""
    encoder = Path(shutil.copytree(trainings.encoder, tmp_path / "encoder"))
    weights, words = load_file(encoder / WEIGHTS), "embeddings.word_embeddings.weight"
    tokenizer = PretrainedTokenizer.from_file(encoder / TOKENIZER)
    rows = tickets.subset(split_rows(tickets.texts, split_rule(240, 0))[0])
    encodings = tokenizer.encode_batch(rows.texts, 23)
    texts_with = Counter(id_ for encoding in encodings for id_ in set(encoding.ids))
    word = next(id_ for id_, texts in texts_with.items() if texts == 5)
    weights[words][word] = math.nan
    save_file(weights, encoder / WEIGHTS)
    broken = {row for row, encoding in enumerate(encodings) if word in encoding.ids}
    expected = sum(len(broken & set(batch)) for batch in batches(16))
    assert expected > 3

    result = trainings.run(tmp_path / "run", trainable, encoder=encoder, steps=16)
    assert result.skipped_records == expected
    trained = load_run(result.path).model
    for name, parameter in trained.named_parameters():
        assert parameter.isfinite().all() or name == "words.weight", name
    assert trained.words.weight.isfinite().all(1).sum() == len(trained.words.weight) - 1
    assert trained.head.weight.abs().max() > 0.1
