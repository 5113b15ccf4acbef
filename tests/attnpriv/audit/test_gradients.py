"""Integrated gradients are computed once, and come back from a piece of work with every bit."""

from __future__ import annotations

import torch

from attnpriv.audit.documents import Documents
from attnpriv.audit.gradients import Gradients, explained
from attnpriv.audit.tasks import to_arrays, to_bytes
from attnpriv.explain.gradients import integrated_gradients
from attnpriv.models.text import TextClassifier


def test_each_document_is_explained_once_for_its_own_class(
    model: TextClassifier, documents: Documents
) -> None:
    targets = [d % 10 for d in range(len(documents))]
    gradients = Gradients(model, documents, targets, 8)
    for d in (3, 0, 7):
        example = documents.embedded(model, d)
        alone = integrated_gradients(model, example, torch.tensor([targets[d]]), 8)
        assert torch.equal(gradients[d].scores, alone.scores)
        assert gradients[d] is gradients[d]


def test_a_finished_piece_of_work_gives_back_every_bit(
    model: TextClassifier, documents: Documents
) -> None:
    gradients = Gradients(model, documents, [0] * len(documents), 8)
    seen: list[tuple[int, int]] = []
    kept = to_bytes(gradients.arrays([2, 5], lambda *at: seen.append(at)))
    found = explained(to_arrays(kept))
    assert (sorted(found), seen) == ([2, 5], [(1, 2), (2, 2)])
    for d, own in found.items():
        for name, value in vars(gradients[d]).items():
            assert torch.equal(vars(own)[name], value)
            assert vars(own)[name].dtype == value.dtype
    again = Gradients(model, documents, [0] * len(documents), 8, found)
    assert again[5] is found[5]
