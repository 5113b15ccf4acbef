"""Tickets as the small model reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch

from attnpriv.data import Dataset
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.text import pad_batch

Padded = Callable[[Sequence[int]], tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="session")
def padded(tickets: Dataset) -> Padded:
    """Ids [B, T] and mask [B, T] of the given tickets."""
    encodings = HashTokenizer(4096).encode_batch(tickets.texts[:40], 64)
    return lambda rows: pad_batch([encodings[row] for row in rows], 0)
