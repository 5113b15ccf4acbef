"""The answers of shadow models: where they are kept, and how attacks weigh them.

Both audits share this: the one with the run folder computes with arrays, the client's with numbers.
Plain Python, without numpy and torch, since the client's audit has neither. ``Values`` are numbers,
or arrays of them.

Sources: LiRA, Carlini, Chien, Nasr, Song, Terzis and Tramèr 2022 (arXiv:2112.03570), section V;
RMIA, Zarifzadeh, Liu and Shokri 2024 (arXiv:2312.03262), equations 4 and 10 and appendix B.2.2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from attnpriv.errors import InputError

SETTINGS, RUNS, ANSWERS = "settings.json", "runs", "answers"
FORMAT = 1
LOG_ODDS, INSIDE = "log_odds", "inside"

Name = Literal["lira", "lira_offline", "rmia", "rmia_offline"]
NAMES: tuple[Name, ...] = ("lira", "lira_offline", "rmia", "rmia_offline")
LEAST = 2  # models on either side of a record: of fewer there is no variance
OWN_VARIANCE = 64  # models from which on each record gets a variance of its own
SMALLEST_VARIANCE = 1e-12  # of models that all answer alike
OFFLINE_A = 0.3  # RMIA's a for a model about which nothing is known
PLANTED = 2.0  # log-odds, or deviations where these are more, that the positive control plants
MUST_WIN = 0.75  # the lower end of each attack's AUC there
NULL_ERROR = 0.0005  # each AUC's chance to fail the null control
EXPECTED = (
    "a shadow model attacked, with what it was trained on planted in its answers: AUC of each "
    f"attack above {MUST_WIN}",
    "each answer that of a model which did not see the record: 0.5 within the "
    f"{100 * (1 - NULL_ERROR):g} % interval of every AUC, that of the loss threshold included",
)
Values = Any


def answers_path(folder: Path, number: int) -> Path:
    """Where the answers of a model are."""
    return folder / ANSWERS / f"{number:04d}.safetensors"


def not_finished(folder: Path, missing: int, models: int) -> InputError:
    """The error of a folder in which models are missing."""
    return InputError(
        f"{missing} of the {models} shadow models in {folder} are not finished: go on "
        "with attnpriv shadows --resume"
    )


def too_few(models: int) -> InputError:
    """The error where no member, or no non-member, has models on both sides."""
    return InputError(f"{models} shadow models are too few for these records: train more")


def log_density(target: Values, mean: Values, variance: Values, log_variance: Values) -> Values:
    """LiRA: log-density of the target's log-odds under models of one side, without its constant."""
    return -((target - mean) ** 2) / (2 * variance) - log_variance / 2


def deviations(target: Values, mean: Values, variance: Values) -> Values:
    """LiRA, offline: by how many standard deviations the target is above the OUT models."""
    return (target - mean) / variance**0.5


def ratio_online(own: Values, inside: Values, outside: Values) -> Values:
    """RMIA: the target's probability over the mean of the models', half of it IN and half OUT."""
    return own / ((inside + outside) / 2)


def ratio_offline(own: Values, outside: Values, a: float) -> Values:
    """RMIA, offline: the same, where IN models are taken to be right by ``a p_out + 1 - a``."""
    return own / (((1 + a) * outside + (1 - a)) / 2)
