"""Shapes in types are compared while the tests run."""

from __future__ import annotations

import pytest
import torch

from attnpriv.attention import attend
from attnpriv.attention.modules import PerRecord
from attnpriv.attention.scores import additive_pairs
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from tests.shapes import ShapeError

Q, K = torch.ones(2, 3, 5, 7), torch.ones(2, 3, 11, 7)


def test_a_shape_that_does_not_fit_shows_although_torch_broadcasts_it() -> None:
    additive_pairs(Q, K)
    with pytest.raises(ShapeError, match=r"expected k as .*'k': \[2, 1, 11, 7\]"):
        additive_pairs(Q, K[:, :1])


def test_another_dtype_shows() -> None:
    with pytest.raises(ShapeError, match="expected q as"):
        additive_pairs(Q.long(), K)


def test_a_wrong_result_shows_in_a_method(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_out = PerRecord(torch.ones(3, 7))
    assert handed_out(Q).shape == (2, 3, 7)
    monkeypatch.setattr(torch.Tensor, "expand", lambda self, *shape: self)
    with pytest.raises(ShapeError, match="PerRecord.forward: expected return"):
        handed_out(Q)


def test_what_a_function_refuses_it_refuses_itself() -> None:
    with pytest.raises(InputError, match="expected v of shape"):
        attend(Q, K, K[0], None, AttentionConfig())
