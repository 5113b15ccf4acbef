"""The run folder behind every server of this benchmark but ours: texts to labels, and no more."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from attnpriv.data.text import pad_batch
from attnpriv.models.classifier import batches_by_length
from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import encode_texts
from attnpriv_server.backend import make_backend

# How a server is told what to serve: peers start processes of their own, which inherit the
# environment and nothing else.
RUN, PRECISION = "SERVING_RUN", "SERVING_PRECISION"
WORKERS, THREADS = "SERVING_WORKERS", "SERVING_THREADS"
ROWS = 8  # of one forward pass, once a batch is sorted by length


def workers() -> int:
    """How many replicas a server is to have."""
    return int(os.environ[WORKERS])


class Classifier:
    """Labels of texts, by the run folder and in the precision that the environment names."""

    def __init__(self) -> None:
        torch.set_num_threads(int(os.environ[THREADS]))
        self.run = load_run(os.environ[RUN])
        self.backend = make_backend(self.run, os.environ[PRECISION])

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The most probable label of each text."""
        encodings = encode_texts(self.run, texts)
        labels = [""] * len(texts)
        for rows in batches_by_length(encodings, ROWS):
            batch = pad_batch([encodings[row] for row in rows], self.run.tokenizer.pad_id)
            best = self.backend.probabilities(*batch).argmax(-1)
            for row, label in zip(rows, best, strict=True):
                labels[row] = self.run.label_names[label]
        return labels
