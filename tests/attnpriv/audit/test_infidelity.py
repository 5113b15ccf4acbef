from __future__ import annotations

import numpy as np
import pytest
import torch

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.infidelity import (
    DRAWS,
    RADIUS,
    draw_removals,
    infidelity,
    measure_sensitivity,
)
from attnpriv.data import Texts
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError
from attnpriv.explain.attention import attention_received
from attnpriv.models.text import TextClassifier


def test_removals_spare_the_special_tokens_and_have_all_sizes() -> None:
    content = torch.zeros(2, 12, dtype=torch.bool)
    content[0, 1:11] = content[1, 1:6] = True
    removed = draw_removals(content, [4, 9], 400, seed=0)
    assert not removed[:, :, 0].any()
    assert not removed[0, :, 11].any()
    assert not removed[1, :, 6:].any()
    assert set(removed[0].sum(-1).tolist()) == set(range(11))
    assert torch.equal(removed[1], draw_removals(content[1:], [9], 400, seed=0)[0])


def test_infidelity_by_hand() -> None:
    removed = torch.tensor([[[True, False], [False, True], [True, True]]])
    effects = torch.tensor([[2.0, 4.0, 7.0]])
    # Foretold 1, 2, 3; the best factor is (2 + 8 + 21) / (1 + 4 + 9) = 31/14.
    expected = np.mean((31 / 14 * np.array([1, 2, 3]) - np.array([2, 4, 7])) ** 2)
    measured = infidelity(torch.tensor([[1.0, 2.0]]), removed, effects)
    assert float(measured) == pytest.approx(expected, rel=1e-5)
    scaled = infidelity(torch.tensor([[-50.0, -100.0]]), removed, effects)
    assert float(scaled) == pytest.approx(expected, rel=1e-5)


def test_infidelity_is_0_for_what_foretells_all_and_the_mean_square_for_what_foretells_none() -> (
    None
):
    torch.manual_seed(0)
    weights, removed = torch.randn(3, 11), torch.rand(3, 7, 11) < 0.5
    effects = (removed * weights[:, None]).sum(-1)
    assert float(infidelity(weights, removed, effects).max()) < 1e-10
    torch.testing.assert_close(
        infidelity(torch.zeros(3, 11), removed, effects), effects.square().mean(1)
    )
    others = infidelity(torch.randn(3, 11), removed, effects)
    assert (others <= effects.square().mean(1) + 1e-6).all()


def test_sensitivity_equals_a_plain_loop(model: TextClassifier, documents: Documents) -> None:
    targets = [d % 10 for d in range(len(documents))]
    result = measure_sensitivity(model, documents, targets, most=2, steps=6, resamples=20, seed=0)
    rng = np.random.default_rng(0)
    chosen = sorted(rng.choice(len(documents), 2, replace=False).tolist())
    largest = []
    for d in chosen:
        example = documents.embedded(model, d)
        x = example.x
        drawn, deviation = np.random.default_rng([0, d, 3]), x[0, 1:-1].std(correction=0)

        def explain(x: torch.Tensor, mask: torch.Tensor = example.mask) -> torch.Tensor:
            weights = model.run(x, mask, need_maps=True).self_attention()
            return attention_received(weights[-1:], mask).mean((1, 2))

        moves = []
        # Captum hands all copies of the text over at once.
        for noise in drawn.uniform(-RADIUS, RADIUS, (DRAWS, *x.shape[1:])):
            moved = x.clone()
            moved[0, 1:-1] += torch.from_numpy(noise[1:-1]).float() * deviation
            moves.append(float((explain(moved) - explain(x)).norm() / explain(x).norm()))
        largest.append(max(moves))
    assert result.documents == 2
    assert result.explanations[0].explanation == "attention"
    assert result.explanations[0].largest.value == pytest.approx(np.mean(largest), rel=1e-3)
    assert result.valid


@pytest.mark.exhaustive
def test_sensitivity_is_the_same_each_time(model: TextClassifier, documents: Documents) -> None:
    targets, seen = [0] * len(documents), []
    first, again = (
        measure_sensitivity(
            model, documents, targets, most=2, steps=4, resamples=10, seed=1,
            progress=lambda *counts: seen.append(counts),
        )
        for _ in range(2)
    )  # fmt: skip
    assert first == again
    assert seen[:2] == [(1, 2), (2, 2)]


def test_texts_of_one_token_and_of_none(model: TextClassifier) -> None:
    texts = ("one", "")
    data = Texts("made", texts, (0, 0), tuple("abcdefghij"), ((), ()))
    documents = prepare(Text(HashTokenizer(4096), 64), data, ((), ()))
    settings = {"most": 9, "steps": 4, "resamples": 10, "seed": 0}
    result = measure_sensitivity(model, documents, [0, 0], **settings)
    assert (result.documents, result.sampled_from) == (1, 1)
    assert (result.explanations[1].largest.value or 0) > 0
    nothing = prepare(Text(HashTokenizer(4096), 64), data.subset([1]), ((),))
    with pytest.raises(InputError, match="none in 1"):
        measure_sensitivity(model, nothing, [0], **settings)
