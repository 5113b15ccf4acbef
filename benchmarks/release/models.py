"""The models that are attacked, trained here once; those with an encoder by the usual defaults."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.errors import InputError
from attnpriv.runs.folder import Run, load_run
from attnpriv.training import train

SMALL = TrainConfig(trainable="all", steps=60, batch_size=128)  # minutes less, a few points worse
SMS = Path(__file__).resolve().parents[3] / "shared" / "data" / "sms_spam.tsv"


@dataclass(frozen=True)
class Trained:
    """A model and its task.

    Attributes:
        data: ``sms`` or ``tickets``.
        encoder: as for ``attnpriv train``; of a pretrained one the head alone is trained.
        epsilon: None without privacy.
    """

    data: str
    encoder: str
    epsilon: float | None

    @property
    def name(self) -> str:
        """For tables and folders."""
        return "-".join((self.data, self.encoder, "plain" if self.epsilon is None else "private"))


@lru_cache
def load_data(name: str) -> Dataset:
    """The rows of a task.

    Raises:
        InputError: the real data is not beside the checkout.
    """
    if name == "tickets":
        return load_dataset(name)
    if not SMS.is_file():
        raise InputError(f"this benchmark needs {SMS}")
    return load_dataset(str(SMS))


def open_model(wanted: Trained, folder: Path) -> Run:
    """Load the run folder of a model; where it is missing, train it first."""
    path = folder / wanted.name
    if not path.exists():
        print(f"training {wanted.name}", file=sys.stderr, flush=True)
        train(
            load_data(wanted.data),
            path,
            encoder=wanted.encoder,
            config=SMALL if wanted.encoder == "scratch" else TrainConfig(),
            privacy=None if wanted.epsilon is None else PrivacyConfig(wanted.epsilon),
        )
    return load_run(path)
