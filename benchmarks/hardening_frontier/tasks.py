"""The data sets: their rows, their splits, and the score that each is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from attnpriv.audit.statistics import Floats
from attnpriv.audit.utility import utility
from attnpriv.data import Dataset, Texts, load_dataset, split_indices
from attnpriv.errors import InputError

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = ("sms", "sst2", "tickets")
SMS_TRAIN_ROWS = 4458


@dataclass(frozen=True)
class Task:
    """A data set with its way of splitting and scoring.

    Attributes:
        name: one of ``NAMES``.
        data: all rows, training and held out.
        train_size: share or number of the rows to train on.
        fixed_split: the first ``train_size`` rows are the training rows whatever the seed.
        scored_class: whose F1 is the score; None scores accuracy.
    """

    name: str
    data: Dataset
    train_size: float
    fixed_split: bool = False
    scored_class: str | None = None

    @property
    def metric(self) -> str:
        """The name of the score."""
        return "accuracy" if self.scored_class is None else f"F1 of {self.scored_class}"

    def split(self, seed: int) -> tuple[list[int], list[int]]:
        """Training and held-out row numbers."""
        if not self.fixed_split:
            return split_indices(len(self.data), self.train_size, seed)
        rows = list(range(len(self.data)))
        return rows[: int(self.train_size)], rows[int(self.train_size) :]

    def score(self, rows: list[int], probabilities: Floats) -> float:
        """The score of predictions [N, K] for the given rows."""
        labels = [self.data.labels[row] for row in rows]
        scores = utility(labels, probabilities, self.data.label_names, resamples=1)
        if self.scored_class is None:
            return scores.accuracy.value or 0.0
        return {each.label: each.f1.value for each in scores.classes}[self.scored_class] or 0.0


@lru_cache
def load_task(name: str) -> Task:
    """Load one of ``NAMES``.

    Raises:
        InputError: its file is missing or cannot be read, or there is no such task.
    """
    match name:
        case "sms":
            data = _read("sms_spam.tsv", text=1, label=0)
            return Task(name, data, SMS_TRAIN_ROWS, scored_class="spam")
        case "sst2":
            train, dev = (_read(f"sst2_{part}.tsv", text=0, label=1) for part in ("train", "dev"))
            data = Texts(
                "sst2", train.texts + dev.texts, train.labels + dev.labels, train.label_names
            )
            return Task(name, data, len(train), fixed_split=True)
        case "tickets":
            return Task(name, load_dataset("tickets:rows=2000"), 0.8)
    raise InputError(f"expected a data set among {', '.join(NAMES)}, got {name!r}")


def _read(file: str, text: int, label: int) -> Dataset:
    path = FOLDER / file
    if not path.is_file():
        raise InputError(f"this benchmark needs {path}")
    return load_dataset(str(path), text_column=text, label_column=label)
