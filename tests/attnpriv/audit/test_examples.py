from __future__ import annotations

import numpy as np

from attnpriv.audit.attention import measure_attention
from attnpriv.audit.documents import Documents
from attnpriv.audit.examples import examples, worst_documents
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.data.records import Span
from attnpriv.models.text import TextClassifier
from attnpriv.sensitive import PresidioDetector


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
    gradients = Gradients(model, documents, probabilities.argmax(1).tolist(), 8)
    shown = examples(gradients, model, spans, probabilities, worst_documents(attention, 3))
    excess = attention.mean_shares() - attention.uniform
    worst = np.argsort(-excess)[:3]
    names = documents.data.label_names
    assert [each.label for each in shown] == [names[documents.data.labels[d]] for d in worst]
    assert [each.predicted for each in shown] == [names[d % 10] for d in worst]
    assert excess[worst[0]] == excess.max() > 0
    for d, each in zip(worst, shown, strict=True):
        marked = {piece.placeholder for piece in each.pieces if piece.placeholder}
        seen = documents.samples[d].end
        assert {f"[{s.entity_type}]" for s in spans[d] if s.end <= seen} <= marked


def test_what_the_detector_finds_is_hidden_where_the_data_set_marks_less(
    model: TextClassifier, documents: Documents
) -> None:
    gold = documents.data.spans or ()
    kept = [tuple(s for s in spans if s.entity_type == "PERSON") for spans in gold]
    attention = measure_attention(model, documents, permutations=10, seed=0).content
    probabilities = np.eye(10)[[0] * len(documents)]
    detector = PresidioDetector()
    gradients = Gradients(model, documents, [0] * len(documents), 4)
    shown = examples(gradients, model, kept, probabilities, worst_documents(attention, 9), detector)
    excess = attention.mean_shares() - attention.uniform
    for d, each in zip(np.argsort(-excess, kind="stable")[:9], shown, strict=True):
        text = documents.data.texts[d]
        words = [piece.word for piece in each.pieces if piece.word]
        for span in (*kept[d], *detector.detect(text)):
            assert not any(text[slice(*o)] in words for o in inside(documents, d, span))


def inside(documents: Documents, document: int, span: Span) -> list[tuple[int, int]]:
    """The tokens that hold a part of a span and stand nowhere else in the text."""
    offsets = [place for place in documents.samples[document].places if place is not None]
    text = documents.data.texts[document]
    within = [o for o in offsets if o[0] < span.end and o[1] > span.start and o[1] > o[0]]
    return [o for o in within if text.count(text[slice(*o)]) == 1]
