"""From labelled texts to a run folder, with or without differential privacy."""

from attnpriv.training.train import TrainingResult, train

__all__ = ["TrainingResult", "train"]
