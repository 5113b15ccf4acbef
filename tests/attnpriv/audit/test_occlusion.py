from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from attnpriv.audit.attribution import sample_sensitive, sensitive_documents
from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.occlusion import measure_occlusion
from attnpriv.data import Texts
from attnpriv.data.records import Span
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError
from attnpriv.explain.gradients import integrated_gradients
from attnpriv.explain.removal import occlusion
from attnpriv.models.text import TextClassifier

STEPS = 8
SETTINGS = {"permutations": 50, "resamples": 20, "seed": 0}


def test_figures_equal_a_slow_loop(model: TextClassifier, documents: Documents) -> None:
    targets = [d % 10 for d in range(len(documents))]
    result = measure_occlusion(Gradients(model, documents, targets, STEPS), most=12, **SETTINGS)
    chosen = sample_sensitive(documents, 12, seed=0)
    share = uniform = gradients = 0.0
    agreement = []
    for d in chosen:
        example = documents.embedded(model, d)
        flags, target = documents.sensitive[d][1:-1], torch.tensor([targets[d]])
        left_out = occlusion(model, example, target)[0, 1:-1].abs().double().numpy()
        ig = integrated_gradients(model, example, target, 8).scores[0, 1:-1].abs().double().numpy()
        share += left_out[flags].sum() / left_out.sum()
        gradients += ig[flags].sum() / ig.sum()
        uniform += flags.mean()
        agreement.append(spearmanr(left_out, ig).statistic)
    assert (result.documents, result.sampled_from) == (12, len(sensitive_documents(documents)))
    assert result.share == pytest.approx(share / len(chosen), rel=1e-5)
    assert result.lift.permuted.lift.value == pytest.approx(share / uniform, rel=1e-5)
    measured = result.integrated_gradients.permuted.lift.value
    assert measured == pytest.approx(gradients / uniform, rel=1e-5)
    assert result.rank_correlation.value == pytest.approx(np.mean(agreement), rel=1e-4)
    assert result.rank_documents == len(chosen)
    assert (result.null_low or 1) < 0 < (result.null_high or -1)


def test_a_sample_is_the_same_each_time(model: TextClassifier, documents: Documents) -> None:
    targets, seen = [0] * len(documents), []
    first, again = (
        measure_occlusion(
            Gradients(model, documents, targets, STEPS),
            most=3,
            progress=lambda *c: seen.append(c),
            **SETTINGS,
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
    result = measure_occlusion(Gradients(model, nothing, [0, 0, 0], STEPS), most=9, **SETTINGS)
    assert (result.documents, result.share, result.rank_documents) == (3, None, 1)
    assert result.lift.permuted.lift.value is None
    everything = _documents(("anna bo", "eve"), ((Span(0, 7, "NAME"),), (Span(0, 3, "NAME"),)))
    result = measure_occlusion(Gradients(model, everything, [0, 0], STEPS), most=9, **SETTINGS)
    assert (result.share, result.lift.permuted.lift.value) == (1.0, 1.0)
    assert result.lift.permuted.p_value == 1.0
    assert result.lift.matched.lift.value is None
    with pytest.raises(InputError, match="got none"):
        measure_occlusion(Gradients(model, _documents((), ()), [], STEPS), most=9, **SETTINGS)
