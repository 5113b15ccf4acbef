"""From labelled texts to a run folder, with or without differential privacy."""

from attnpriv.training.bounded_encoder import bound_encoder
from attnpriv.training.candidates import Candidate
from attnpriv.training.checkpoint import has_begun
from attnpriv.training.processes import is_first_process
from attnpriv.training.release import TrainingResult
from attnpriv.training.train import train
from attnpriv.training.tune import tune

__all__ = [
    "Candidate",
    "TrainingResult",
    "bound_encoder",
    "has_begun",
    "is_first_process",
    "train",
    "tune",
]
