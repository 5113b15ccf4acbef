"""What a training leaves: how good the model is, and the files of its run folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from attnpriv.config import TrainConfig
from attnpriv.errors import InputError
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.privacy.ledger import Ledger
from attnpriv.replacing import replace_file
from attnpriv.runs.card import ModelCard
from attnpriv.runs.card_text import card_text
from attnpriv.runs.folder import CARD, CARD_TEXT, LEDGER, write_json, write_model
from attnpriv.training.preparation import Classifier


@dataclass(frozen=True)
class TrainingResult:
    """What a training run ended with.

    Attributes:
        path: the run folder.
        card: its model card.
        skipped_records: how many times a record's gradient was not finite and was left out, as far
            as this process took the steps; a function of the private data, covered by no ε, and not
            in the run folder.
    """

    path: Path
    card: ModelCard
    skipped_records: int


@torch.no_grad()
def count_correct(model: AttentionClassifier, features: Tensor, targets: Tensor) -> int:
    """How many rows the head answers correctly from their features.

    A row whose logits are not finite counts as wrong, so that each row moves the count by at most
    1, whatever the weights are.
    """
    outputs = model.head(features)
    right = model.task.correct(outputs, targets) & outputs.flatten(1).isfinite().all(1)
    return int(right.sum())


def write_release(folder: Path, trained: Classifier, config: TrainConfig, card: ModelCard) -> None:
    """Complete the ledger in a work folder, then write what it paid for."""
    ledger = Ledger(folder / LEDGER)
    for what in card.not_covered:
        ledger.record_not_covered(what)
    if card.privacy is None:
        ledger.record_not_covered("the whole training: no gradient was clipped or noised")
    write_model(folder, trained.model, card.label_names, asdict(config), trained.tokenizer_file)
    write_json(folder / CARD, card.as_written)
    replace_file(folder / CARD_TEXT, card_text(card).encode(), mode=0o644)


@contextmanager
def writing_is_possible(out: Path, afterwards: str) -> Iterator[None]:
    """Turn a full disk or a lost right into an error that says how to go on."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write {error.filename or out}: {error.strerror}; {afterwards}"
        ) from error
