from __future__ import annotations

import numpy as np
import pytest

from attnpriv.audit import counterfactual
from attnpriv.audit.counterfactual import measure_counterfactuals
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.swapping import find_entities
from attnpriv.data import Texts
from attnpriv.data.records import Span
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.runs.folder import Run

SETTINGS = {"most": 99, "permutations": 99, "resamples": 20, "seed": 0}


def _documents(texts: tuple[str, ...], spans: tuple[tuple[Span, ...], ...]) -> Documents:
    data = Texts("made", texts, (0,) * len(texts), tuple("abcdefghij"), spans)
    return prepare(Text(HashTokenizer(4096), 64), data, spans)


def test_every_figure_equals_a_slow_loop(run: Run, documents: Documents) -> None:
    """The swaps are taken as they are made; what they do to the answer is measured anew."""
    spans = documents.data.spans or ()
    result = measure_counterfactuals(run, documents, spans, **SETTINGS)
    entities = [find_entities(documents, d, found) for d, found in enumerate(spans)]
    words = [counterfactual.find_words(documents, d) for d in range(len(documents))]
    pool = counterfactual.Pool(e for found in (*entities, *words) for e in found)
    swapper = counterfactual.Swapper(run.tokenizer, 64, pool)
    changes = []
    for d in range(len(documents)):
        inputs = documents.inputs([d])
        ids, mask = inputs.values, inputs.mask
        before = run.model(ids, mask).softmax(-1)[0].double().numpy()
        for case in counterfactual._cases(swapper, documents, d, entities[d], words[d], 0):
            swapped, hidden = ids.clone(), mask.clone()
            swapped[0] = ids.new_tensor(case.swapped)
            hidden[0, list(case.tokens)] = False
            after = [run.model(swapped, mask), run.model(ids, hidden)]
            p = np.array([each.softmax(-1)[0].double().numpy() for each in after])
            changes.append(np.abs(p - before)[:, before.argmax()].tolist())
    assert result.overall.entities == len(changes) > 50
    swap, mask = np.mean(changes, axis=0)
    assert result.overall.swap.change.value == pytest.approx(swap, abs=1e-5)
    assert result.overall.mask.change.value == pytest.approx(mask, abs=1e-5)
    assert sum(each.entities for each in result.types) == result.overall.entities
    assert sum(each.left_out for each in result.types) == result.overall.left_out
    assert result.positive.passed
    assert result.null.passed
    assert result == measure_counterfactuals(run, documents, spans, **SETTINGS)


def test_nothing_to_swap_gives_no_number_and_no_finding(run: Run) -> None:
    for texts, spans in (
        ((), ()),
        (("ask me", ""), ((), ())),  # no personal data
        (("anna", "bo"), ((Span(0, 4, "NAME"),), (Span(0, 2, "NAME"),))),  # no words for the null
        (("ask anna", "or me"), ((Span(4, 8, "NAME"),), ())),  # no other value
    ):
        documents = _documents(texts, spans)
        result = measure_counterfactuals(run, documents, spans, **SETTINGS)
        assert result.overall.entities == 0
        assert result.overall.left_out == sum(map(len, spans))
        assert (result.overall.p_value, result.overall.swap.change.value) == (None, None)
        assert not result.valid
        assert not any(each.flagged for each in result.types)


def test_a_value_beyond_the_models_length_is_left_out(run: Run) -> None:
    words = "ask him now " * 25
    texts = (words + "anna", "ask anna or bo", "not emma yet")
    spans = (
        (Span(300, 304, "NAME"),),
        (Span(4, 8, "NAME"), Span(12, 14, "NAME")),
        (Span(4, 8, "NAME"),),
    )
    result = measure_counterfactuals(run, _documents(texts, spans), spans, **SETTINGS)
    assert (result.overall.entities, result.overall.left_out) == (3, 1)
