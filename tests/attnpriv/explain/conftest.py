"""Tickets as the small model reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from attnpriv.data import Dataset
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.modality import Inputs

Tickets = Callable[[Sequence[int]], Inputs]


@pytest.fixture(scope="session")
def read(tickets: Dataset) -> Tickets:
    """The given tickets in one batch."""
    modality = Text(HashTokenizer(4096), 64)
    samples = modality.read(tickets.texts[:40])
    return lambda rows: modality.collate([samples[row] for row in rows])
