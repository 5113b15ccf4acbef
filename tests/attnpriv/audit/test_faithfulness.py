from __future__ import annotations

import copy
import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from attnpriv.audit.documents import Documents, prepare
from attnpriv.audit.faithfulness import (
    PERCENTS,
    measure_faithfulness,
    removal_drops,
)
from attnpriv.audit.gradients import Gradients
from attnpriv.data import Texts
from attnpriv.data.text import Text
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError
from attnpriv.explain.removal import leave_one_out
from attnpriv.modality import AttentionModel, Embedded, Pass
from attnpriv.models.text import TextClassifier

STEPS = 8
SETTINGS = {"most": 99, "permutations": 50, "resamples": 100, "seed": 0}


class _Linear(nn.Module):
    """A probe whose logit for class 1 is the sum of the visible embeddings over ten."""

    def run(self, x: torch.Tensor, mask: torch.Tensor) -> Pass:
        score = (x[..., 0] * mask).sum(1, keepdim=True) / 10
        return Pass(torch.cat([torch.zeros_like(score), score], dim=1), score)


def _embedded(values: torch.Tensor, mask: torch.Tensor) -> Embedded:
    """Positions embedded as the numbers they are; the first and the last were added."""
    content = mask.clone()
    content[:, [0, int(mask.sum()) - 1]] = False
    x = values[..., None].float()
    return Embedded(x, torch.zeros_like(x), mask, content)


LINEAR = cast(AttentionModel, _Linear())


def _p(total: int) -> float:
    return 1 / (1 + math.exp(-total / 10))


def test_drops_of_a_linear_probe_are_those_by_hand() -> None:
    """Ten content tokens of scores 1 to 10: the shares take away 1, 1, 1, 2 and 5 of them."""
    ids = torch.tensor([[0, 3, 1, 4, 2, 9, 10, 6, 8, 7, 5, 0, 0]])
    mask = torch.tensor([[True] * 12 + [False]])
    drops = removal_drops(LINEAR, _embedded(ids, mask), torch.tensor([1]), ids.double())
    gone = [10, 10, 10, 10 + 9, 10 + 9 + 8 + 7 + 6]
    assert PERCENTS == (1, 5, 10, 20, 50)
    assert drops.shape == (1, 2, 5)
    for share, sum_gone in enumerate(gone):
        assert float(drops[0, 0, share]) == pytest.approx(_p(55) - _p(55 - sum_gone), abs=1e-6)
        assert float(drops[0, 1, share]) == pytest.approx(_p(55) - _p(sum_gone), abs=1e-6)


def test_shares_are_rounded_up_and_the_left_of_equals_goes_first() -> None:
    ids = torch.tensor([[0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 0]])  # 11 content tokens
    mask = torch.ones(1, 13, dtype=torch.bool)
    drops = removal_drops(LINEAR, _embedded(ids, mask), torch.tensor([1]), torch.zeros(1, 13))
    first = (1, 1, 1 + 2, 1 + 2 + 4, 1 + 2 + 4 + 8 + 16 + 32)  # 1 %, 5 %: one; 10 %: two; ...
    kept = drops[0, 1]
    assert kept.tolist() == pytest.approx([1 - _p(total) for total in first], abs=1e-6)


def test_true_effects_beat_random_and_the_controls_pass(
    model: TextClassifier, documents: Documents
) -> None:
    settings = {**SETTINGS, "most": 25}
    examples = [documents.embedded(model, d) for d in range(len(documents))]
    predicted = [int(model.run(each.x, each.mask).outputs.argmax()) for each in examples]
    result = measure_faithfulness(Gradients(model, documents, predicted, STEPS), **settings)
    rankings = {ranking.ranking: ranking for ranking in result.rankings}
    assert list(rankings) == ["attention", "leave_one_out", "integrated_gradients", "random"]
    assert result.valid
    assert result.percents == PERCENTS
    assert (rankings["leave_one_out"].comprehensiveness_gain.low or 0) > 0
    random = rankings["random"]
    assert (random.comprehensiveness_gain.value, random.sufficiency_gain.value) == (0.0, 0.0)
    for ranking in result.rankings:
        mean = np.mean([each.value for each in ranking.comprehensiveness])
        assert ranking.comprehensiveness_aopc.value == pytest.approx(mean)
        mean = np.mean([each.value for each in ranking.sufficiency])
        assert ranking.sufficiency_aopc.value == pytest.approx(mean)
        assert 0 < (ranking.infidelity.value or 0) <= 1


def test_a_ranking_can_be_added_and_equals_its_twin(
    model: TextClassifier, documents: Documents
) -> None:
    settings = {**SETTINGS, "most": 5}
    targets = [0] * len(documents)
    twin = {"twin": leave_one_out}
    result = measure_faithfulness(
        Gradients(model, documents, targets, STEPS), scorers=twin, **settings
    )
    rankings = {ranking.ranking: ranking for ranking in result.rankings}
    assert rankings["twin"].comprehensiveness == rankings["leave_one_out"].comprehensiveness
    assert (result.documents, result.sampled_from) == (5, 40)
    assert result == measure_faithfulness(
        Gradients(model, documents, targets, STEPS), scorers=twin, **settings
    )


def test_a_model_that_reads_nothing_is_not_valid(
    model: TextClassifier, documents: Documents
) -> None:
    blind = copy.deepcopy(model)
    blind.head.weight.zero_()
    result = measure_faithfulness(
        Gradients(blind, documents, [0] * len(documents), STEPS), **{**SETTINGS, "most": 9}
    )
    assert not result.positive.passed
    assert not result.valid
    assert all(ranking.comprehensiveness_aopc.value == 0 for ranking in result.rankings)
    assert all(ranking.infidelity.value is None for ranking in result.rankings)
    assert result.rank_correlation.documents == 0


def _documents(*texts: str) -> Documents:
    data = Texts("made", texts, (0,) * len(texts), tuple("abcdefghij"), ((),) * len(texts))
    return prepare(Text(HashTokenizer(4096), 64), data, data.spans or ())


def test_texts_of_one_token_and_of_none(model: TextClassifier) -> None:
    result = measure_faithfulness(
        Gradients(model, _documents("one", "", "two"), [0, 0, 0], STEPS), **SETTINGS
    )
    assert (result.documents, result.sampled_from) == (2, 2)
    for ranking in result.rankings:  # whatever the ranking, the only token goes
        assert ranking.comprehensiveness_gain.value == 0
        assert all(each.value == pytest.approx(0, abs=1e-6) for each in ranking.sufficiency)
    assert result.rank_correlation.documents == 0
    with pytest.raises(InputError, match="none in 2"):
        measure_faithfulness(Gradients(model, _documents("", ""), [0, 0], STEPS), **SETTINGS)
