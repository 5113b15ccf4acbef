from __future__ import annotations

import pytest
import torch

from attnpriv.audit.attribution import sensitive_documents
from attnpriv.audit.conductance import measure_conductance
from attnpriv.audit.documents import Documents, prepare
from attnpriv.data import Texts
from attnpriv.data.records import Span
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError
from attnpriv.explain.gradients import attention_conductance
from attnpriv.models.text import TextClassifier

SETTINGS = {"steps": 8, "permutations": 50, "resamples": 20, "seed": 0}
DOCUMENT, TARGET = 0, 4


def test_figures_equal_a_slow_loop(model: TextClassifier, documents: Documents) -> None:
    targets = [d % 10 for d in range(len(documents))]
    result = measure_conductance(model, documents, targets, most=99, **SETTINGS)
    chosen = sensitive_documents(documents)
    share, uniform = torch.zeros(2, dtype=torch.float64), 0.0
    for d in chosen:
        example = documents.embedded(model, d)
        flags = torch.from_numpy(documents.sensitive[d][1:-1])
        scores = attention_conductance(model, example, targets[d], 8).abs().sum((1, 2))
        scores = scores[:, 1:-1].double()
        share += scores[:, flags].sum(1) / scores.sum(1)
        uniform += float(flags.double().mean())
    assert (result.documents, result.sampled_from) == (len(chosen), len(chosen))
    assert result.shares == pytest.approx((share / len(chosen)).tolist(), rel=1e-5)
    lifts = [layer.permuted.lift.value for layer in result.layers]
    assert lifts == pytest.approx((share / uniform).tolist(), rel=1e-5)
    assert [layer.name for layer in result.layers] == ["layer 1", "layer 2"]


def test_a_sample_is_the_same_each_time(model: TextClassifier, documents: Documents) -> None:
    targets, seen = [0] * len(documents), []
    first, again = (
        measure_conductance(
            model, documents, targets, most=3, progress=lambda *c: seen.append(c), **SETTINGS
        )
        for _ in range(2)
    )
    assert first == again
    assert (first.documents, seen[:3]) == (3, [(1, 3), (2, 3), (3, 3)])


def _documents(texts: tuple[str, ...], spans: tuple[tuple[Span, ...], ...]) -> Documents:
    data = Texts("made", texts, (0,) * len(texts), tuple("abcdefghij"), spans)
    return prepare(Text(HashTokenizer(4096), 64), data, spans)


def test_texts_without_personal_data_without_tokens_or_all_of_it(model: TextClassifier) -> None:
    nothing = _documents(("ask me now", "one", ""), ((), (), ()))
    result = measure_conductance(model, nothing, [0, 0, 0], most=9, **SETTINGS)
    assert (result.documents, result.shares) == (3, (None, None))
    assert result.layers[0].permuted.lift.value is None
    everything = _documents(("anna bo", "eve"), ((Span(0, 7, "NAME"),), (Span(0, 3, "NAME"),)))
    result = measure_conductance(model, everything, [0, 0], most=9, **SETTINGS)
    assert result.shares == (1.0, 1.0)
    assert result.layers[0].permuted.p_value == 1.0
    with pytest.raises(InputError, match="got none"):
        measure_conductance(model, _documents((), ()), [], most=9, **SETTINGS)
