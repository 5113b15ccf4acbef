"""A small model with random weights and tickets marked by their gold spans."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from attnpriv.audit.documents import Documents, prepare
from attnpriv.config import AttentionConfig, ModelConfig
from attnpriv.data import Dataset
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.text import TextClassifier

VOCABULARY = 4096
MakeModel = Callable[[AttentionConfig], TextClassifier]


@pytest.fixture(scope="session")
def make_model(tickets: Dataset) -> MakeModel:
    def make(attention: AttentionConfig) -> TextClassifier:
        torch.manual_seed(0)
        model = TextClassifier(
            ModelConfig(
                encoder="scratch",
                vocab_size=VOCABULARY,
                dim=15,
                layers=2,
                heads=3,
                hidden_dim=22,
                max_length=64,
                num_labels=len(tickets.label_names),
                attention=attention,
            )
        )
        for parameter in model.parameters():
            if parameter.ndim == 2:  # large enough that attention is far from uniform
                torch.nn.init.normal_(parameter, std=0.6)
        return model.eval().requires_grad_(False)

    return make


@pytest.fixture(scope="session")
def model(make_model: MakeModel) -> TextClassifier:
    return make_model(AttentionConfig())


@pytest.fixture(scope="session")
def documents(tickets: Dataset) -> Documents:
    data = tickets.subset(range(40))
    assert data.spans is not None
    return prepare(HashTokenizer(VOCABULARY), 64, data, data.spans)
