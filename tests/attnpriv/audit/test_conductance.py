from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from captum.attr import LayerConductance
from torch import nn

from attnpriv.audit.attribution import path_ends, sensitive_documents
from attnpriv.audit.conductance import attention_conductance, measure_conductance
from attnpriv.audit.documents import Documents, prepare
from attnpriv.config import AttentionConfig
from attnpriv.data import Dataset
from attnpriv.data.records import Span
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier

SETTINGS = {"steps": 8, "permutations": 50, "resamples": 20, "seed": 0}
DOCUMENT, TARGET = 0, 4


def _captums(model: TextClassifier, documents: Documents, steps: int) -> list[torch.Tensor]:
    """The conductance of every layer's weights, each by a run of its own."""
    ids, mask = documents.padded([DOCUMENT])
    baseline, x = path_ends(model, ids, mask, documents.pad_id)

    def forward(embedded: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        states, _ = model.encode(embedded, masks, need_weights=True)
        return model.head(model.pool(states, masks))

    return [
        LayerConductance(forward, block.attention.core.weights)
        .attribute(
            x, baselines=baseline, target=TARGET, additional_forward_args=(mask,), n_steps=steps
        )[0]
        .detach()
        for block in model.blocks
    ]


def _ours(model: TextClassifier, documents: Documents, steps: int) -> torch.Tensor:
    ids, mask = documents.padded([DOCUMENT])
    return attention_conductance(model, ids, mask, TARGET, steps, documents.pad_id)


def test_agrees_with_captums_layer_conductance(
    make_model: Callable[[AttentionConfig], TextClassifier], documents: Documents
) -> None:
    model = make_model(AttentionConfig(temperature=4.0))  # smooth, so that few steps suffice
    ours, theirs = _ours(model, documents, 100), _captums(model, documents, 800)
    assert ours.shape == (2, 3, len(documents.encodings[DOCUMENT].ids), ours.shape[-1])
    for layer in range(2):
        tolerance = 0.02 * float(theirs[layer].abs().max())
        torch.testing.assert_close(ours[layer], theirs[layer], atol=tolerance, rtol=0)


def test_few_steps_come_close(model: TextClassifier, documents: Documents) -> None:
    exact, few = (_ours(model, documents, steps) for steps in (300, 50))
    assert float((few - exact).norm() / exact.norm()) < 0.1


def test_layers_that_share_a_block_are_told_apart(
    model: TextClassifier, documents: Documents
) -> None:
    """The same model written with one block and with two equal ones."""
    apart = copy.deepcopy(model)
    apart.blocks = nn.ModuleList([copy.deepcopy(apart.blocks[0]) for _ in range(2)])
    shared = copy.deepcopy(apart)
    shared.config = replace(shared.config, share_layers=True)
    shared.blocks = nn.ModuleList([apart.blocks[0]])
    ours = _ours(shared, documents, 20)
    torch.testing.assert_close(ours, _ours(apart, documents, 20))
    assert not torch.allclose(ours[0], ours[1], atol=1e-4)


def test_what_does_not_reach_the_answer_has_none(
    model: TextClassifier, documents: Documents
) -> None:
    """A head whose part of the projection is zero adds nothing, whatever it attends to."""
    deaf = copy.deepcopy(model)
    deaf.blocks[1].attention.output.weight[:, 5:10] = 0.0
    conductance = _ours(deaf, documents, 8)
    assert (conductance[1, 1] == 0).all()
    assert (conductance[1, [0, 2]].abs().sum((1, 2)) > 0).all()


def test_figures_equal_a_slow_loop(model: TextClassifier, documents: Documents) -> None:
    targets = [d % 10 for d in range(len(documents))]
    result = measure_conductance(model, documents, targets, most=99, **SETTINGS)
    chosen = sensitive_documents(documents)
    share, uniform = torch.zeros(2, dtype=torch.float64), 0.0
    for d in chosen:
        ids, mask = documents.padded([d])
        flags = torch.from_numpy(documents.sensitive[d][1:-1])
        scores = attention_conductance(model, ids, mask, targets[d], 8, 0).abs().sum((1, 2))
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
    data = Dataset("made", texts, (0,) * len(texts), tuple("abcdefghij"), spans)
    return prepare(HashTokenizer(4096), 64, data, spans)


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
