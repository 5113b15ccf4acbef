"""Tickets marked by their gold spans, and models that were trained on them for seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from attnpriv.audit.documents import Documents, prepare
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Dataset
from attnpriv.data.text import Text, pad_batch
from attnpriv.data.tickets import make_tickets
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import Run

VOCABULARY = 4096
STEEPNESS = 10.0  # of the quickly trained head: features have norm 1, and steps are few


@pytest.fixture(scope="session")
def documents(tickets: Dataset) -> Documents:
    data = tickets.subset(range(40))
    assert data.spans is not None
    return prepare(Text(HashTokenizer(VOCABULARY), 64), data, data.spans)


def make_run(model: TextClassifier, data: Dataset) -> Run:
    """A run that is in no folder."""
    text = Text(HashTokenizer(model.config.vocab_size), model.config.max_length)
    return Run(Path("nowhere"), "made", model, text, data.label_names, {}, {})


@pytest.fixture(scope="session")
def run(model: TextClassifier, tickets: Dataset) -> Run:
    return make_run(model, tickets)


@pytest.fixture(scope="session")
def train_quickly() -> Callable[[Dataset, int], Run]:
    """Train a small model on a whole data set for some steps, without privacy, in seconds."""

    def fit(data: Dataset, steps: int) -> Run:
        torch.manual_seed(0)
        config = ModelConfig(
            encoder="scratch",
            vocab_size=8192,
            dim=24,
            layers=2,
            heads=2,
            hidden_dim=48,
            max_length=96,
            num_labels=len(data.label_names),
            attention=AttentionConfig(),
        )
        run = make_run(TextClassifier(config), data)
        encodings = run.tokenizer.encode_batch(data.texts, config.max_length)
        labels, rng = torch.tensor(data.labels), np.random.default_rng(0)
        optimizer = torch.optim.Adam(run.model.parameters(), lr=0.01)
        for _ in range(steps):
            batch = rng.choice(len(data), 24, replace=False)
            ids, mask = pad_batch([encodings[row] for row in batch], run.tokenizer.pad_id)
            loss = F.cross_entropy(STEEPNESS * run.model(ids, mask), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        run.model.eval().requires_grad_(False)
        run.model.head.weight *= STEEPNESS
        run.model.head.bias *= STEEPNESS
        return run

    return fit


@pytest.fixture(scope="session")
def leaky_data() -> Dataset:
    """Tickets in which the domain of the e-mail address tells the label; 450 are trained on."""
    return make_tickets(600, seed=0, tie=True)


@pytest.fixture(scope="session")
def leaky_run(leaky_data: Dataset, train_quickly: Callable[[Dataset, int], Run]) -> Run:
    """A model that has learnt to read that domain."""
    return train_quickly(leaky_data.subset(range(450)), 150)


@pytest.fixture(scope="session")
def leaky_members(leaky_run: Run, leaky_data: Dataset) -> Documents:
    return _prepare(leaky_run, leaky_data.subset(range(450)))


@pytest.fixture(scope="session")
def leaky_documents(leaky_run: Run, leaky_data: Dataset) -> Documents:
    return _prepare(leaky_run, leaky_data.subset(range(450, 600)))


@pytest.fixture(scope="session")
def leaky_predicted(leaky_run: Run, leaky_documents: Documents) -> list[int]:
    rows = range(len(leaky_documents))
    examples = (leaky_documents.embedded(leaky_run.model, d) for d in rows)
    return [int(leaky_run.model.run(each.x, each.mask).outputs.argmax()) for each in examples]


def _prepare(run: Run, data: Dataset) -> Documents:
    assert data.spans is not None
    return prepare(run.modality, data, data.spans)
