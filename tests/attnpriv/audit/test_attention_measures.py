from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from attnpriv import guarantees
from attnpriv.audit.attention import (
    AttentionAccumulator,
    AttentionResult,
    measure_attention,
)
from attnpriv.audit.documents import Documents
from attnpriv.config import AttentionConfig
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier

HARD = AttentionConfig(temperature=2.0, clip=3.0, clip_mode="norm")


def _measure(model: TextClassifier, documents: Documents) -> AttentionResult:
    statistics = measure_attention(model, documents, permutations=100, seed=0)
    return statistics.result(model.config.attention, resamples=50, seed=0)


def test_every_figure_equals_a_slow_loop_over_single_documents(
    model: TextClassifier, documents: Documents
) -> None:
    result = _measure(model, documents)
    layer, head = 1, 2
    content_share = uniform = mass = row_uniform = special = entropy = 0.0
    largest = 0.0
    for d in range(len(documents)):
        example = documents.embedded(model, d)
        maps = model.run(example.x, example.mask, need_maps=True).self_attention()
        weights = maps[layer][0, head].double().numpy()
        flags, n = documents.sensitive[d], len(documents.sensitive[d])
        received = weights.mean(0)
        if flags.any():
            content_share += received[flags].sum() / received[1:-1].sum()
            uniform += flags.sum() / (n - 2)
        mass += received[flags].sum()
        row_uniform += flags.sum() / n
        special += received[0] + received[-1]
        entropy += -(weights * np.log(weights + 1e-300)).sum(1).mean() / np.log(n)
        largest = max(largest, weights.max())
    (measured,) = [h for h in result.heads if (h.layer, h.head) == (layer, head)]
    assert measured.content.lift.value == pytest.approx(content_share / uniform, rel=1e-5)
    assert measured.row_lift == pytest.approx(mass / row_uniform, rel=1e-5)
    assert measured.special_mass == pytest.approx(special / len(documents), rel=1e-5)
    assert measured.normalised_entropy == pytest.approx(entropy / len(documents), rel=1e-4)
    assert measured.largest_weight == pytest.approx(largest, rel=1e-5)


@pytest.mark.parametrize("mode", ["clamp", "tanh", "norm", "relative"])
def test_bounds_hold_and_are_approached(
    make_model: Callable[[AttentionConfig], TextClassifier], documents: Documents, mode: str
) -> None:
    config = AttentionConfig(temperature=1.0, clip=1.0, clip_mode=mode)  # type: ignore[arg-type]
    certificate = _measure(make_model(config), documents).certificate
    assert certificate.holds is True
    assert 0.3 < (certificate.weight_ratio or 0) <= 1 + 1e-5
    assert 0.3 < (certificate.mass_ratio or 0) <= 1 + 1e-5
    sizes = [len(flags) for flags in documents.sensitive]
    bounds = [guarantees.weight_bounds(1.0, 1.0, n)[1] for n in sizes]
    assert certificate.largest_weight_bound in bounds


def test_a_model_that_breaks_its_claim_is_caught(
    model: TextClassifier, documents: Documents
) -> None:
    statistics = measure_attention(model, documents, permutations=10, seed=0)
    claimed = statistics.result(AttentionConfig(clip=0.1), resamples=10, seed=0).certificate
    assert claimed.holds is False
    assert (claimed.weight_ratio or 0) > 1


def test_unclipped_attention_has_no_bound(model: TextClassifier, documents: Documents) -> None:
    certificate = _measure(model, documents).certificate
    assert certificate.holds is None
    assert certificate.largest_weight_bound is None
    assert certificate.largest_weight > 0.5


def test_row_lift_stays_below_its_bound(
    make_model: Callable[[AttentionConfig], TextClassifier], documents: Documents
) -> None:
    result = _measure(make_model(HARD), documents)
    bound = result.certificate.row_lift_bound or 0
    assert 1 < bound < 20
    assert all(1e-3 < (head.row_lift or 0) <= bound for head in result.heads)


def test_attention_forced_onto_sensitive_tokens_is_found(documents: Documents) -> None:
    """A positive control of the whole measure: weights planted on the sensitive keys."""
    statistics = AttentionAccumulator(documents, (1, 2), permutations=200, seed=0)
    for d, flags in enumerate(documents.sensitive):
        logits = torch.zeros(1, 2, len(flags), len(flags))
        logits[0, 0] += torch.from_numpy(flags)
        statistics.add(d, torch.softmax(logits, -1), torch.ones(1, 2, len(flags)))
    planted, uniform = statistics.result(AttentionConfig(), resamples=100, seed=0).heads
    assert (planted.content.lift.low or 0) > 1.3
    assert (planted.content.p_adjusted or 1) < 0.05
    assert uniform.content.lift.value == pytest.approx(1.0)
    assert (uniform.content.p_adjusted or 0) > 0.5


def test_pieces_in_any_order_give_the_same_bits(
    model: TextClassifier, documents: Documents
) -> None:
    whole = measure_attention(model, documents, permutations=100, seed=0)
    config = model.config
    pieced = AttentionAccumulator(documents, (config.layers, config.heads), 100, 0)
    for piece in ([39, 3, 17], [*range(20, 39)], [0, 1, 2, *range(4, 17), 18, 19]):
        part = measure_attention(model, documents, 100, 0, chosen=piece)
        pieced.put(piece, part.take(piece))
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(pieced.arrays()[name], array, name)
    assert pieced.result(config.attention, 50, 0) == whole.result(config.attention, 50, 0)
    assert pieced.flow.result(50) == whole.flow.result(50)


def test_no_documents_are_refused(model: TextClassifier, documents: Documents) -> None:
    nothing = Documents(documents.data.subset([]), documents.modality, (), ())
    with pytest.raises(InputError, match="got none"):
        measure_attention(model, nothing, permutations=10, seed=0)
