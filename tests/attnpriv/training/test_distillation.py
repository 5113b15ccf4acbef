"""Learning from a teacher: what the loss is, what it brings, and which teachers are refused."""

from __future__ import annotations

import hashlib
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from attnpriv.config import AttentionConfig, ModelConfig, Pooling, PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, HashTokenizer
from attnpriv.data.text import Text, pad_batch
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import CARD_TEXT, TOKENIZER, WEIGHTS, Run, load_run
from attnpriv.training import TrainingResult, train
from attnpriv.training.distillation import TaughtRecords, distance, divergence
from attnpriv.training.teacher import student_of

TEXTS = [" ".join(f"word{(i * 7 + j) % 31}" for j in range(1 + i % 11)) for i in range(23)]
LABELS = torch.arange(23) % 3
HASHES = HashTokenizer(64)
ENCODINGS = HASHES.encode_batch(TEXTS, 16)


def make_model(seed: int, pooling: Pooling = "layers", **attention: float) -> TextClassifier:
    torch.manual_seed(seed)
    config = ModelConfig(
        encoder="scratch",
        vocab_size=64,
        dim=12,
        layers=3,
        heads=3,
        hidden_dim=7,
        max_length=16,
        num_labels=3,
        pooling=pooling,
        attention=AttentionConfig(**attention),
    )
    model = TextClassifier(config)
    nn.init.normal_(model.head.weight, std=3.0)
    return model


def all_losses(teacher: TextClassifier, student: TextClassifier, tokens: int) -> dict[int, float]:
    """The loss of every record, by its row."""
    records = TaughtRecords(teacher, student, Text(HASHES, 16), ENCODINGS, LABELS, tokens)
    batch = torch.arange(len(TEXTS))
    rows = [rows for rows, *_ in records.micro_batches(batch)]
    losses = [losses_of(student) for losses_of in records.losses(batch)]
    return dict(zip(torch.cat(rows).tolist(), torch.cat(losses).tolist(), strict=True))


def loss_by_hand(teacher: TextClassifier, student: TextClassifier, row: int) -> float:
    """The same from the formula, for one text without padding, in plain numbers."""
    ids = torch.tensor([ENCODINGS[row].ids])
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        answers = [model(ids, mask)[0].tolist() for model in (student, teacher)]
        states = [model.encode(model.embed(ids), mask)[0] for model in (student, teacher)]

    def softened(logits: list[float], temperature: float) -> list[float]:
        powers = [math.exp(z / temperature) for z in logits]
        return [power / sum(powers) for power in powers]

    cross_entropy = -math.log(softened(answers[0], 1.0)[int(LABELS[row])])
    ours, theirs = softened(answers[0], 2.0), softened(answers[1], 2.0)
    divergence = sum(t * math.log(t / s) for s, t in zip(ours, theirs, strict=True))
    distance = sum(
        (s.double() - t.double()).square().mean().item() for s, t in zip(*states, strict=True)
    )
    return 0.5 * cross_entropy + 4.0 * divergence + 10.0 * distance


@pytest.mark.every_value
@pytest.mark.parametrize("pooling", ["mean", "cls", "layers"])
@pytest.mark.parametrize("tokens", [1, 40, 10_000])
def test_each_record_has_the_loss_of_the_formula_however_batches_are_cut(
    pooling: Pooling, tokens: int
) -> None:
    teacher, student = make_model(0, pooling), make_model(1, pooling, clip=0.97)
    losses = all_losses(teacher, student, tokens)
    assert sorted(losses) == list(range(len(TEXTS)))
    for row, loss in losses.items():
        assert loss == pytest.approx(loss_by_hand(teacher, student, row), rel=1e-4)


def test_a_student_that_is_its_teacher_learns_from_the_labels_alone() -> None:
    teacher = make_model(0)
    student = make_model(0)
    records = TaughtRecords(teacher, student, Text(HASHES, 16), ENCODINGS, LABELS, 10_000)
    (losses_of,) = records.losses(torch.arange(len(TEXTS)))
    losses_of(student).sum().backward()
    taught = [p.grad.clone() for p in student.parameters()]
    student.zero_grad()
    (rows, ids, mask), *_ = records.micro_batches(torch.arange(len(TEXTS)))
    (
        0.5 * nn.functional.cross_entropy(student(ids, mask), LABELS[rows], reduction="sum")
    ).backward()
    for ours, theirs in zip(taught, student.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.grad, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


def test_padding_has_no_part_in_the_distance() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    ours, theirs = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    other = torch.where(mask.unsqueeze(-1), ours, torch.full_like(ours, 1e6))
    assert distance([ours], [theirs], mask).equal(distance([other], [theirs], mask))
    assert distance([ours, ours], [theirs, ours], mask).equal(distance([ours], [theirs], mask))


def test_the_divergence_is_zero_where_answers_agree_and_positive_elsewhere() -> None:
    logits = torch.tensor([[0.0, 1.0, -2.0], [5.0, 5.0, 5.0]])
    assert divergence(logits, logits + 3.0).abs().max() < 1e-6
    assert (divergence(logits, logits.flip(1) * 2.0)[0] > 0).all()


PLAIN = TrainConfig(trainable="all", steps=40, batch_size=48, learning_rate=3e-3)
HARDENED = AttentionConfig(clip=0.1)


@pytest.fixture(scope="module")
def teacher_run(
    tickets: Dataset, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "plain"
    plain = {"attention": AttentionConfig(), "config": PLAIN, "privacy": None}
    return train(tickets, out, encoder=str(tiny_encoder), pooling="mean", **plain).path


def distil(dataset: Dataset, out: Path, teacher: Path, **changes: Any) -> TrainingResult:
    options: dict[str, Any] = {"attention": HARDENED, "config": PLAIN, "privacy": None}
    return train(dataset, out, distil_from=teacher, **{**options, **changes})


@pytest.fixture(scope="module")
def student_run(
    tickets: Dataset, teacher_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return distil(tickets, tmp_path_factory.mktemp("student") / "run", teacher_run).path


def mean_divergence(model: TextClassifier, teacher: Run, texts: tuple[str, ...]) -> float:
    inputs = pad_batch(teacher.tokenizer.encode_batch(texts, 23), teacher.tokenizer.pad_id)
    with torch.no_grad():
        return divergence(model(*inputs), teacher.model(*inputs)).mean().item()


def test_a_hardened_student_comes_nearer_to_its_teacher_also_on_other_texts(
    tickets: Dataset, teacher_run: Path, student_run: Path
) -> None:
    student, teacher = load_run(student_run), load_run(teacher_run)
    held_out = tickets.subset(teacher.split(tickets).held_out).texts
    copy = student_of(teacher, HARDENED).model
    apart = mean_divergence(copy, teacher, held_out)
    assert apart > 1e-4, "the clip must change something"
    # From the labels alone it would keep three quarters of the distance.
    assert mean_divergence(student.model, teacher, held_out) < apart / 2


def test_a_student_has_its_teachers_shape_and_its_own_certificate(
    teacher_run: Path, student_run: Path
) -> None:
    student, teacher = load_run(student_run), load_run(teacher_run)
    assert replace(student.model.config, attention=AttentionConfig()) == teacher.model.config
    assert student.model.config.attention == HARDENED
    assert (student_run / TOKENIZER).read_bytes() == (teacher_run / TOKENIZER).read_bytes()
    encodings = [run.tokenizer.encode_batch(("some words",), 9) for run in (student, teacher)]
    assert encodings[0] == encodings[1]


def test_card_says_who_the_teacher_was_and_that_nothing_is_private(
    teacher_run: Path, student_run: Path
) -> None:
    card = load_run(student_run).card
    assert card.teacher.name == "plain"
    assert card.teacher.attention.clip is None
    digest = hashlib.sha256((teacher_run / WEIGHTS).read_bytes()).hexdigest()
    assert card.teacher.sha256[WEIGHTS] == digest
    assert card.private is False
    text = (student_run / CARD_TEXT).read_text()
    assert "| distilled from | plain, trained on the same rows: dot_product logits not clip" in text
    assert load_run(teacher_run).card.teacher is None
    assert "distilled" not in (teacher_run / CARD_TEXT).read_text()


@pytest.mark.parametrize("floors", [(None, 0.5), (0.5, None), (0.25, 0.5)])
def test_learned_temperatures_start_anew(
    tickets: Dataset, tmp_path: Path, floors: tuple[float | None, float | None]
) -> None:
    """A teacher's may lie below the student's floor, and then no certificate would hold."""
    plain, hardened = (
        AttentionConfig(clip=clip, temperature_floor=floor)
        for clip, floor in zip((None, 1.0), floors, strict=True)
    )
    config = replace(PLAIN, steps=2)
    teacher = train(tickets, tmp_path / "teacher", attention=plain, config=config, privacy=None)
    student = student_of(load_run(teacher.path), hardened).model
    assert student.temperatures() == TextClassifier(student.config).temperatures()
    assert student.words.weight.equal(load_run(teacher.path).model.words.weight)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "privacy": (
        {"privacy": PrivacyConfig(epsilon=3.0)},
        "expected epsilon none with .*, got 3:",
    ),
    "encoder": ({"encoder": "minilm"}, "--encoder cannot be .*'minilm': .* teacher's encoder"),
    "pooling": ({"pooling": "cls"}, "--pooling cannot be .*'cls': .* teacher's pooling"),
    "sharing": ({"share_layers": True}, "--share-layers cannot .*True: .* teacher's sharing"),
    "score": ({"attention": AttentionConfig(score="additive")}, "score dot_product.*'additive'"),
    "seed": ({"config": replace(PLAIN, seed=1)}, "seed 1.*got 'plain'.*seed 0"),
    "cut": ({"config": replace(PLAIN, train_size=0.5)}, r"train_size 0.5.*'plain'.*size 0.8"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_with_a_teacher_is_refused_before_anything_is_written(
    tickets: Dataset, teacher_run: Path, tmp_path: Path, case: str
) -> None:
    changes, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        distil(tickets, tmp_path / "student", teacher_run, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_teacher_of_other_rows_may_have_seen_the_held_out_ones(
    tickets: Dataset, teacher_run: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="trained on the same data, got 'plain'"):
        distil(tickets.subset(range(299)), tmp_path / "student", teacher_run)
    with pytest.raises(InputError, match="expected a run folder"):
        distil(tickets, tmp_path / "student", tmp_path / "nobody")


def test_a_distillation_goes_on_with_the_same_teacher_alone(
    tickets: Dataset, teacher_run: Path, student_run: Path, tmp_path: Path
) -> None:
    def interrupt(step: int, *_: Any) -> None:
        if step == 21:
            raise KeyboardInterrupt

    out = tmp_path / "cut" / "run"
    with pytest.raises(KeyboardInterrupt):
        distil(tickets, out, teacher_run, on_step=interrupt)
    another = tmp_path / "another"
    shutil.copytree(student_run, another)
    with pytest.raises(InputError, match="its teacher is .*'plain'.* this command's is .*another"):
        distil(tickets, out, another, resume=True)
    resumed = distil(tickets, out, teacher_run, resume=True).path
    assert (resumed / WEIGHTS).read_bytes() == (student_run / WEIGHTS).read_bytes()
