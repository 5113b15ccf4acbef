from __future__ import annotations

import numpy as np
import pytest

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.subsets import SetAccumulator, Subsets
from attnpriv.data.records import Span, Texts
from attnpriv.data.spans import sensitive_tokens
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer


def _scores(documents: Documents, heads: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.exponential(size=(heads, len(e.ids) - 2)) for e in documents.samples]


def test_lifts_by_type_and_by_label_equal_a_slow_loop(documents: Documents) -> None:
    spans, scores = documents.data.spans or (), _scores(documents, 3)
    subsets = Subsets(documents, spans, permutations=30, seed=0)
    for d, each in enumerate(scores):
        subsets.add(d, each)
    lifts = subsets.by_type(20)
    assert [lift.name for lift in lifts] == sorted({s.entity_type for f in spans for s in f})
    for lift in lifts:
        share = uniform = 0.0
        tokens = 0
        for d, each in enumerate(scores):
            own = [s for s in spans[d] if s.entity_type == lift.name]
            flags = np.array(sensitive_tokens(documents.samples[d].places, own))[1:-1]
            share += (each / each.sum(1, keepdims=True))[:, flags].sum(1).mean()
            uniform += flags.mean()
            tokens += flags.sum()
        assert lift.permuted.lift.value == pytest.approx(share / uniform)
        assert lift.tokens == tokens
    labels = subsets.by_label(20)
    assert [lift.name for lift in labels] == list(documents.data.label_names)
    own = [d for d, label in enumerate(documents.data.labels) if label == 3]
    assert labels[3].tokens == sum(int(documents.sensitive[d].sum()) for d in own)


def test_a_planted_type_is_found_and_the_others_are_not(documents: Documents) -> None:
    spans = documents.data.spans or ()
    subsets = Subsets(documents, spans, permutations=400, seed=0)
    for d, each in enumerate(_scores(documents, 2)):
        own = [s for s in spans[d] if s.entity_type == "PERSON"]
        each[:, np.array(sensitive_tokens(documents.samples[d].places, own))[1:-1]] *= 4
        subsets.add(d, each)
    flagged = {lift.name for lift in subsets.by_type(50) if (lift.permuted.p_holm or 1) < 0.05}
    assert flagged == {"PERSON"}


def test_the_null_deals_types_to_tokens_uniformly() -> None:
    """One document, m tokens with known shares: each type's draws have the mean of the shares."""
    statistics = SetAccumulator(1, 2, permutations=20_000, seed=0)
    scores = np.array([[1.0, 2.0, 3.0, 4.0, 10.0]])
    members = np.array([[1, 1, 0, 0, 0], [0, 1, 1, 0, 0]], dtype=bool)  # the second is in both
    statistics.add(0, scores, members, np.ones(5, dtype=np.int64))
    first, second = statistics.lifts(("first", "second"), 0, 10)
    assert first.permuted.lift.value == pytest.approx((0.05 + 0.10) / (2 / 5))
    assert second.permuted.lift.value == pytest.approx((0.10 + 0.15) / (2 / 5))
    for lift in (first, second):
        # Of the ten pairs that can be drawn, one in ten is {1, 2} and one {4, 10}.
        assert lift.permuted.null_low == pytest.approx(0.15 / 0.4)
        assert lift.permuted.null_high == pytest.approx(0.70 / 0.4)
    assert first.permuted.p_value == pytest.approx(0.2, abs=0.02)  # {1, 2} and {4, 10}


def test_without_spans_only_labels_are_told_apart(documents: Documents) -> None:
    subsets = Subsets(documents, None, permutations=10, seed=0)
    for d, each in enumerate(_scores(documents, 1)):
        subsets.add(d, each)
    assert subsets.by_type(10) == ()
    assert sum(lift.tokens for lift in subsets.by_label(10)) == sum(
        int(flags.sum()) for flags in documents.sensitive
    )


def test_a_type_that_lies_beyond_the_models_length_has_no_number() -> None:
    texts = ("call me at once please 123", "")
    data = Texts("cut", texts, (0, 1), ("a", "b"), ((Span(23, 26, "PHONE"),), ()))
    documents = prepare(Text(HashTokenizer(64), 5), data, data.spans or ())
    subsets = Subsets(documents, data.spans, permutations=10, seed=0)
    for d, each in enumerate(_scores(documents, 1)):
        subsets.add(d, each)
    (lift,) = subsets.by_type(10)
    assert (lift.tokens, lift.permuted.lift.value, lift.permuted.p_value) == (0, None, None)
