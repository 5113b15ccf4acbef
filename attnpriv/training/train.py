"""Training as a whole: split, build, fit, write the run folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from attnpriv.config import AttentionConfig, ModelConfig, Pooling, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset, split_indices
from attnpriv.data.tokenisation import HashTokenizer, Tokenizer, WordPieceTokenizer
from attnpriv.errors import InputError
from attnpriv.model_card import NOT_COVERED, build_card
from attnpriv.models.pretrained import encoder_folder, load_pretrained
from attnpriv.models.text import TextClassifier, pooled_features
from attnpriv.privacy.ledger import Ledger
from attnpriv.run_folder import CARD, LEDGER, TOKENIZER, staged_run, write_json, write_model
from attnpriv.training.batches import HeadRecords, Records, TextRecords
from attnpriv.training.loop import Fitted, OnStep, Schedule, fit

# The encoder from scratch: small enough for two cores, wide enough for a few thousand texts.
SCRATCH = {
    "vocab_size": 8192,
    "dim": 128,
    "layers": 2,
    "heads": 4,
    "hidden_dim": 256,
    "max_length": 256,
}


@dataclass(frozen=True)
class TrainingResult:
    """What a training run ended with.

    Attributes:
        path: the run folder.
        card: its model card.
        interrupted: whether it was stopped before its last step.
        skipped_records: how many times a record's gradient was not finite and was zeroed; a
            function of the private data, covered by no ε, and not in the run folder.
    """

    path: Path
    card: dict[str, Any]
    interrupted: bool
    skipped_records: int


def train(
    dataset: Dataset,
    out: Path,
    *,
    encoder: str,
    attention: AttentionConfig,
    config: TrainConfig,
    privacy: PrivacyConfig | None,
    pooling: Pooling = "layers",
    on_step: OnStep | None = None,
) -> TrainingResult:
    """Train a text classifier and write its run folder.

    Args:
        dataset: labelled texts; ``config.train_size`` of them are trained on.
        out: the run folder to make.
        encoder: ``scratch``, ``minilm`` or a folder in Hugging Face layout.
        attention: hardening of every layer.
        config: how to fit.
        privacy: the target, or None for training without privacy, which the card then says.
        pooling: how token vectors become one text vector.
        on_step: called with (step, steps, ε spent at most by then) after each step.

    Raises:
        InputError: the data, the target or the options cannot be used. Nothing is written then.

    Claim: with ``privacy``, the weights are (ε, δ)-differentially private with respect to adding or
    removing one training record, ε as on the card. Not covered: what the card and the ledger list
    under ``not_covered``. An interrupt (Ctrl-C) ends the training early and still writes the
    folder, with the ε of the steps that had begun.
    """
    with staged_run(out) as staging:
        train_rows, held_out_rows = split_indices(len(dataset), config.train_size, config.seed)
        rows, held_out = dataset.subset(train_rows), dataset.subset(held_out_rows)
        schedule = _schedule(config, privacy, rows)
        config = replace(config, steps=schedule.steps, batch_size=schedule.batch_size)
        model, tokenizer_file = _build_model(encoder, attention, config.seed, pooling, rows)
        tokenizer = _tokenizer(model, tokenizer_file)
        fitted = fit(
            _records(model, tokenizer, rows, config),
            _optimizer(model, config),
            schedule,
            privacy=privacy,
            seed=config.seed,
            ema_decay=config.ema_decay,
            on_step=on_step,
        )
        card = build_card(
            name=out.name,
            model=model.config,
            temperatures=model.temperatures(),
            label_names=dataset.label_names,
            config=config,
            privacy=privacy,
            spent=fitted.spent,
            data={
                "name": dataset.name,
                "rows_train": len(rows),
                "fingerprint": dataset.fingerprint(),
                "split": {"train_size": config.train_size, "seed": config.seed},
            },
            held_out={"rows": len(held_out), "accuracy": _accuracy(model, tokenizer, held_out)},
            not_covered=(*NOT_COVERED, *dataset.data_dependent),
            interrupted=fitted.interrupted,
        )
        # The expense is on disk before the weights that it paid for.
        _write_ledger(Ledger(staging / LEDGER), card, fitted)
        write_model(staging, model, dataset.label_names, asdict(config), tokenizer_file)
        write_json(staging / CARD, card)
    return TrainingResult(out, card, fitted.interrupted, fitted.skipped_records)


def _schedule(config: TrainConfig, privacy: PrivacyConfig | None, rows: Dataset) -> Schedule:
    """Fill in steps and batch size, and check what depends on the data."""
    size = len(rows)
    if len(set(rows.labels)) < 2:
        raise InputError("expected at least two classes among the training rows, got one")
    head_only = config.trainable == "head"
    largest = min(4096, size // 2) if head_only else min(1024, size // 4)
    batch_size = config.batch_size or max(1, largest)
    if batch_size > size:
        raise InputError(f"expected batch_size at most the {size} training rows, got {batch_size}")
    if privacy is not None and privacy.delta >= 1 / size:
        raise InputError(
            f"expected delta below 1/N = {1 / size:.3g} for {size} training rows, "
            f"got {privacy.delta:g}"
        )
    return Schedule(size, batch_size, config.steps or (200 if head_only else 100))


def _build_model(
    encoder: str, attention: AttentionConfig, seed: int, pooling: Pooling, rows: Dataset
) -> tuple[TextClassifier, Path | None]:
    """The untrained classifier, and the vocabulary file of a pretrained encoder."""
    num_labels = len(rows.label_names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if encoder != "scratch":
            folder = encoder_folder(encoder)
            model = load_pretrained(folder, num_labels, attention, pooling)
            return model, folder / TOKENIZER
        config = ModelConfig(
            encoder=encoder, num_labels=num_labels, attention=attention, pooling=pooling, **SCRATCH
        )
        return TextClassifier(config), None


def _tokenizer(model: TextClassifier, tokenizer_file: Path | None) -> Tokenizer:
    if tokenizer_file is None:
        return HashTokenizer(model.config.vocab_size)
    return WordPieceTokenizer.from_file(tokenizer_file)


def _records(
    model: TextClassifier, tokenizer: Tokenizer, rows: Dataset, config: TrainConfig
) -> Records:
    model.select_trainable(config.trainable)
    encodings = tokenizer.encode_batch(rows.texts, model.config.max_length)
    labels = torch.tensor(rows.labels)
    if config.trainable == "head":
        return HeadRecords(model, encodings, labels, tokenizer.pad_id)
    return TextRecords(model, encodings, labels, tokenizer.pad_id, config.micro_batch_size)


def _optimizer(model: TextClassifier, config: TrainConfig) -> torch.optim.Optimizer:
    head = set(model.head.parameters())
    encoder = [p for p in model.parameters() if p.requires_grad and p not in head]
    groups = [
        {"params": list(model.head.parameters()), "lr": config.head_learning_rate},
        {"params": encoder, "lr": config.learning_rate},
    ]
    return torch.optim.Adam(group for group in groups if group["params"])


def _accuracy(model: TextClassifier, tokenizer: Tokenizer, held_out: Dataset) -> float:
    encodings = tokenizer.encode_batch(held_out.texts, model.config.max_length)
    with torch.no_grad():
        predicted = model.head(pooled_features(model, encodings, tokenizer.pad_id)).argmax(1)
    return float((predicted == torch.tensor(held_out.labels)).double().mean())


def _write_ledger(ledger: Ledger, card: dict[str, Any], fitted: Fitted) -> None:
    for what in card["not_covered"]:
        ledger.record_not_covered(what)
    if fitted.spent is None:
        ledger.record_not_covered("the whole training: no gradient was clipped or noised")
    else:
        ledger.record_steps(fitted.spent, card["delta"], card["epsilon"])
