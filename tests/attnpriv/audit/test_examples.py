from __future__ import annotations

import numpy as np

from attnpriv.audit.attention import measure_attention
from attnpriv.audit.documents import Documents
from attnpriv.audit.examples import examples, worst_documents
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.models.text import TextClassifier


def test_the_worst_come_first_and_those_without_personal_data_never() -> None:
    attention = LiftAccumulator(5, 2, permutations=10, seed=0)
    flags = np.array([True, False, False, False])
    for document, score in ((0, 2.0), (1, 9.0), (3, 0.1), (4, 9.0)):
        attention.add(document, np.array([[score, 1, 1, 1]] * 2), flags)
    assert worst_documents(attention, 9) == [1, 4, 0, 3]
    assert worst_documents(attention, 2) == [1, 4]
    assert worst_documents(attention, 0) == []


def test_examples_are_the_documents_with_the_most_excess(
    model: TextClassifier, documents: Documents
) -> None:
    spans = documents.data.spans or ()
    attention = measure_attention(model, documents, permutations=10, seed=0).content
    probabilities = np.eye(10)[[d % 10 for d in range(len(documents))]]
    shown = examples(model, documents, spans, probabilities, attention, most=3, steps=8)
    excess = attention.mean_shares() - attention.uniform
    worst = np.argsort(-excess)[:3]
    names = documents.data.label_names
    assert [each.label for each in shown] == [names[documents.data.labels[d]] for d in worst]
    assert [each.predicted for each in shown] == [names[d % 10] for d in worst]
    assert excess[worst[0]] == excess.max() > 0
    for d, each in zip(worst, shown, strict=True):
        marked = {piece.placeholder for piece in each.pieces if piece.placeholder}
        seen = documents.encodings[d].offsets[-2][1]
        assert {f"[{s.entity_type}]" for s in spans[d] if s.end <= seen} <= marked
