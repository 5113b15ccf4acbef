"""The four ways to come by a classifier with hardened attention.

* ``frozen``: a pretrained encoder whose attention is replaced, and only a head trained on it.
* ``tuned``: the pretrained encoder fine-tuned whole, without privacy.
* ``distilled``: the plain model of ``tuned`` and its copy, which is hardened and learns from it.
* ``scratch``: the library's small encoder, trained whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from attnpriv.audit.statistics import Floats
from attnpriv.config import AttentionConfig, ModelConfig, Precision, PrivacyConfig, TrainConfig
from attnpriv.data import Encoding, HashTokenizer, PretrainedTokenizer, Tokenizer
from attnpriv.data.text import Text
from attnpriv.models.classifier import pooled_features
from attnpriv.models.pretrained import encoder_folder, load_pretrained
from attnpriv.models.text import TextClassifier
from attnpriv.privacy import noise_multiplier_for
from attnpriv.randomness import StepKeys
from attnpriv.runs.folder import TOKENIZER
from attnpriv.training.batches import HeadRecords, Records, SampleRecords
from attnpriv.training.distillation import TaughtRecords
from attnpriv.training.loop import Schedule, Training, run
from attnpriv.training.preparation import SCRATCH_SHAPE
from attnpriv.training.processes import Processes
from benchmarks.hardening_frontier.cells import Cell
from benchmarks.hardening_frontier.points import Point
from benchmarks.hardening_frontier.tasks import Task, load_task

EPSILON, DELTA = 3.0, 1e-5


@dataclass(frozen=True)
class Recipe:
    """How a regime trains; steps of None are ``epochs`` of the training rows.

    Attributes:
        precision: of the encoder's passes.
        fit: warm-up and decay of the learning rates, decay of the weights' average.
    """

    batch_size: int
    learning_rate: float
    head_learning_rate: float
    micro_batch_tokens: int
    steps: int | None = None
    epochs: int = 2
    precision: Precision = "float32"
    fit: TrainConfig = field(default_factory=TrainConfig)

    def schedule(self, rows: int) -> Schedule:
        """The steps on that many training rows."""
        return Schedule(rows, self.batch_size, self.steps or self.epochs * rows // self.batch_size)


TUNED = Recipe(32, 1e-4, 0.01, 512, precision="bfloat16")
DISTILLED = replace(TUNED, epochs=4, fit=TrainConfig(warmup=0.06, decay="linear"))
SCRATCH_PLAIN = Recipe(64, 1e-3, 0.01, 2048, steps=250)
SCRATCH_PRIVATE = Recipe(1024, 3e-3, 0.15, 2048, steps=60)


@dataclass(frozen=True)
class Trained:
    """A trained classifier.

    Attributes:
        model: the classifier.
        tokenizer: its own.
        predict: the class probabilities [N, K] that it gives to rows of its task.
        teacher: what the model that it learned from gives, if there was one.
    """

    model: TextClassifier
    tokenizer: Tokenizer
    predict: Callable[[Sequence[int]], Floats]
    teacher: Callable[[Sequence[int]], Floats] | None = None


def train_cell(cell: Cell) -> Trained:
    """Train what the cell asks for."""
    torch.manual_seed(cell.seed)
    task = load_task(cell.dataset)
    match cell.regime:
        case "frozen":
            return _train_frozen(cell, task)
        case "tuned":
            return _train_tuned(cell, task)
        case "distilled":
            return _train_distilled(cell, task)
    return _train_scratch(cell, task)


def _train_frozen(cell: Cell, task: Task) -> Trained:
    model = _pretrained(task, cell.point.attention)
    features = _features(task.name, cell.point.attention)
    rows, _ = task.split(cell.seed)
    records = HeadRecords(model.head, features[rows], torch.tensor(task.data.labels)[rows])
    defaults = TrainConfig()
    optimizer = torch.optim.Adam(model.head.parameters(), lr=defaults.head_learning_rate)
    _fit(cell, records, optimizer, Schedule(len(rows), min(4096, len(rows) // 2), 200), defaults)
    tokenizer = _tokenizer("minilm")
    return Trained(model, tokenizer, lambda wanted: _probabilities(model, features[list(wanted)]))


def _train_tuned(cell: Cell, task: Task) -> Trained:
    return _train_whole(cell, task, _pretrained(task, cell.point.attention), TUNED)


def _train_distilled(cell: Cell, task: Task) -> Trained:
    teacher = _teacher(cell.dataset, cell.seed)
    student = _pretrained(task, cell.point.attention)
    student.load_state_dict(teacher.model.state_dict())
    trained = _train_whole(cell, task, student, DISTILLED, teacher.model)
    return replace(trained, teacher=teacher.predict)


@lru_cache(maxsize=1)
def _teacher(dataset: str, seed: int) -> Trained:
    """The plain model of the tuned regime."""
    trained = train_cell(Cell("tuned", dataset, Point.parse("plain"), private=False, seed=seed))
    trained.model.requires_grad_(False)
    return trained


def _train_scratch(cell: Cell, task: Task) -> Trained:
    shape = ModelConfig(
        encoder="scratch",
        num_labels=len(task.data.label_names),
        attention=cell.point.attention,
        pooling="layers",
        **SCRATCH_SHAPE,
    )
    recipe = SCRATCH_PRIVATE if cell.private else SCRATCH_PLAIN
    return _train_whole(cell, task, TextClassifier(shape), recipe)


def _train_whole(
    cell: Cell,
    task: Task,
    model: TextClassifier,
    recipe: Recipe,
    teacher: TextClassifier | None = None,
) -> Trained:
    encoder = "scratch" if cell.regime == "scratch" else "minilm"
    encodings, tokenizer = _encodings(task.name, encoder), _tokenizer(encoder)
    rows, _ = task.split(cell.seed)
    modality = Text(tokenizer, model.config.max_length)
    passes = (
        modality,
        [encodings[row] for row in rows],
        torch.tensor([task.data.labels[row] for row in rows]),
        recipe.micro_batch_tokens,
        recipe.precision,
    )
    records: Records = (
        SampleRecords(model, *passes) if teacher is None else TaughtRecords(teacher, model, *passes)
    )
    _fit(cell, records, _optimizer(model, recipe), recipe.schedule(len(rows)), recipe.fit)

    def predict(wanted: Sequence[int]) -> Floats:
        chosen = [encodings[row] for row in wanted]
        return _probabilities(model, pooled_features(model, modality, chosen))

    return Trained(model, tokenizer, predict)


def _fit(
    cell: Cell,
    records: Records,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    config: TrainConfig,
) -> None:
    # A known seed voids ε for a model in use. Here it gives the same draws and noise to every
    # point, so that differences between points of one seed are not differences of luck.
    privacy = PrivacyConfig(EPSILON, DELTA, noise_seed=cell.seed) if cell.private else None
    rate, steps = schedule.sample_rate, schedule.steps
    training = Training(
        records,
        optimizer,
        schedule,
        config,
        privacy=privacy,
        noise_multiplier=noise_multiplier_for(EPSILON, DELTA, rate, steps) if privacy else 0.0,
        keys=StepKeys.from_seed(cell.seed),
        processes=Processes(),
    )
    run(training)
    training.finish()


def _optimizer(model: TextClassifier, recipe: Recipe) -> torch.optim.Optimizer:
    head = set(model.head.parameters())
    encoder = [p for p in model.parameters() if p not in head]
    return torch.optim.Adam(
        [
            {"params": list(model.head.parameters()), "lr": recipe.head_learning_rate},
            {"params": encoder, "lr": recipe.learning_rate},
        ]
    )


def _pretrained(task: Task, attention: AttentionConfig) -> TextClassifier:
    return load_pretrained(encoder_folder("minilm"), len(task.data.label_names), attention)


@lru_cache(maxsize=1)
def _features(dataset: str, attention: AttentionConfig) -> Tensor:
    """Pooled features of all rows of a data set: they depend on no seed and no label."""
    model = _pretrained(load_task(dataset), attention)
    modality = Text(_tokenizer("minilm"), model.config.max_length)
    return pooled_features(model, modality, _encodings(dataset, "minilm"))


@lru_cache
def _encodings(dataset: str, encoder: str) -> tuple[Encoding, ...]:
    texts = load_task(dataset).data.texts
    return tuple(_tokenizer(encoder).encode_batch(texts, SCRATCH_SHAPE["max_length"]))


@lru_cache
def _tokenizer(encoder: str) -> Tokenizer:
    if encoder == "scratch":
        return HashTokenizer(SCRATCH_SHAPE["vocab_size"])
    return PretrainedTokenizer.from_file(encoder_folder(encoder) / TOKENIZER)


@torch.no_grad()
def _probabilities(model: TextClassifier, features: Tensor) -> Floats:
    return np.asarray(torch.softmax(model.head(features), -1).double().numpy())
