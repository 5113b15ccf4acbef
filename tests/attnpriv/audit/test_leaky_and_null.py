"""Controls over the measures as a whole: a model that is known to leak, and data without a leak."""

from __future__ import annotations

from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom

from attnpriv.audit import counterfactual
from attnpriv.audit.attention import AttentionAccumulator, measure_attention
from attnpriv.audit.attribution import measure_attribution
from attnpriv.audit.conductance import measure_conductance
from attnpriv.audit.counterfactual import measure_counterfactuals
from attnpriv.audit.documents import Documents
from attnpriv.audit.effects import EffectStatistics, corrected
from attnpriv.audit.faithfulness import Scorer, measure_faithfulness
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.lift import Lift
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.occlusion import measure_occlusion
from attnpriv.audit.swapping import Pool, Swapper, find_entities, find_words
from attnpriv.config import AttentionConfig
from attnpriv.data.spans import sensitive_tokens
from attnpriv.explain.attention import attention_received
from attnpriv.models.text import TextClassifier
from attnpriv.runs.folder import Run

SETTINGS = {"most": 40, "permutations": 999, "resamples": 100, "seed": 0}
DRAWS = 100
STATED = 0.05
TOO_MANY = binom.isf(0.005, DRAWS, STATED)  # 11: more come in 4 of 1,000 cases


def _found(lift: Lift) -> bool:
    return (lift.lift.low or 0) > 1 and (lift.p_adjusted or 1) < 0.05 and (lift.p_holm or 1) < 0.05


def _found_by_both(lift: TokenLift) -> bool:
    return _found(lift.permuted) and _found(lift.matched)


@pytest.fixture(scope="module")
def leaky_attention(leaky_run: Run, leaky_documents: Documents) -> AttentionAccumulator:
    spans = leaky_documents.data.spans
    return measure_attention(leaky_run.model, leaky_documents, 999, 0, spans=spans)


def test_the_model_has_learnt_the_leak(
    leaky_predicted: list[int], leaky_documents: Documents
) -> None:
    right = np.mean(
        [a == b for a, b in zip(leaky_predicted, leaky_documents.data.labels, strict=True)]
    )
    assert right > 0.85  # the topic of the text is independent of the label


def test_attention_flags_the_leak_and_its_type_alone(
    leaky_attention: AttentionAccumulator,
) -> None:
    """True of this model. Attention need not show a leak: a model may read it uniformly."""
    result = leaky_attention.result(AttentionConfig(), resamples=100, seed=0)
    assert _found(result.overall)
    assert _found(result.matched)
    assert any(_found(head.content) and _found(head.matched) for head in result.heads)
    flagged = {each.name for each in result.entity_types if _found_by_both(each)}
    assert flagged == {"EMAIL_ADDRESS"}
    controls = (result.planted, result.null, result.matched_planted, result.matched_null)
    assert all(control.passed for control in controls)


def test_rollout_and_norm_weighted_attention_flag_the_leak(
    leaky_attention: AttentionAccumulator,
) -> None:
    flow = leaky_attention.flow.result(100)
    assert _found_by_both(flow.rollout)
    assert _found_by_both(flow.norm_weighted)
    assert any(_found_by_both(head) for head in flow.heads)


def test_attributions_flag_the_leak(
    leaky_run: Run, leaky_documents: Documents, leaky_predicted: list[int]
) -> None:
    measure = (leaky_run.model, leaky_documents, leaky_predicted)
    gradients = Gradients(*measure, steps=16)
    attribution = measure_attribution(gradients, **SETTINGS)
    assert _found(attribution.lift)
    assert (attribution.share or 0) > 0.5
    occlusion = measure_occlusion(gradients, **SETTINGS)
    assert _found_by_both(occlusion.lift)
    assert _found_by_both(occlusion.integrated_gradients)
    assert occlusion.integrated_gradients.permuted.lift == attribution.lift.lift
    assert (occlusion.rank_correlation.low or 0) > 0.2
    assert (occlusion.rank_p_value or 1) < 0.05
    conductance = measure_conductance(*measure, steps=16, **SETTINGS)
    assert all(_found(layer.permuted) for layer in conductance.layers)


def _sensitive_first(model: TextClassifier, documents: Documents) -> Scorer:
    """A ranking by what is marked as an e-mail address; documents are told by their embeddings."""
    spans = documents.data.spans or ()
    marked: dict[bytes, torch.Tensor] = {}
    for d, encoding in enumerate(documents.samples):
        own = [span for span in spans[d] if span.entity_type == "EMAIL_ADDRESS"]
        scores = torch.tensor([sensitive_tokens(encoding.places, own)]).float()
        marked[documents.embedded(model, d).x.numpy().tobytes()] = scores
    return lambda model, example, target: marked[example.x.numpy().tobytes()]


def test_the_answer_hangs_on_the_leak(
    leaky_run: Run, leaky_documents: Documents, leaky_predicted: list[int]
) -> None:
    """Comprehensiveness and sufficiency of the addresses themselves beat random tokens'."""
    result = measure_faithfulness(
        Gradients(leaky_run.model, leaky_documents, leaky_predicted, 16),
        scorers={"addresses": _sensitive_first(leaky_run.model, leaky_documents)},
        **SETTINGS,
    )
    rankings = {ranking.ranking: ranking for ranking in result.rankings}
    assert result.valid
    for name in ("addresses", "integrated_gradients", "attention"):
        assert (rankings[name].comprehensiveness_gain.low or 0) > 0
        assert (rankings[name].sufficiency_gain.low or 0) > 0
    foretold, random = (rankings[n].infidelity for n in ("integrated_gradients", "random"))
    assert (foretold.high or 1) < (random.low or 0)
    assert (result.rank_correlation.mean.low or 0) > 0
    assert (result.rank_correlation.p_value or 1) < 0.05


def test_swapping_and_masking_flag_the_leak(leaky_run: Run, leaky_documents: Documents) -> None:
    spans = leaky_documents.data.spans or ()
    settings = {**SETTINGS, "most": 150}
    result = measure_counterfactuals(leaky_run, leaky_documents, spans, **settings)
    assert result.valid
    assert result.overall.flagged
    types = {each.entity_type: each for each in result.types}
    address = types.pop("EMAIL_ADDRESS")
    assert address.flagged
    assert (address.p_adjusted or 1) < 0.05
    assert (address.swap.flips.low or 0) > 0.5
    assert (address.swap.divergence.low or 0) > (address.swap_null.divergence.high or 1)
    assert (address.mask.change.low or 0) > (address.mask_null.change.high or 1)
    for other in types.values():  # a trained model reads a little of everything
        assert (other.swap.change.high or 0) < 0.5 * (address.swap.change.low or 0)


@pytest.fixture(scope="module")
def received(model: TextClassifier, documents: Documents) -> list[np.ndarray]:
    """The attention that content tokens get from each of the 6 heads, computed once."""
    found = []
    for d in range(len(documents)):
        example = documents.embedded(model, d)
        weights = model.run(example.x, example.mask, need_maps=True).self_attention()
        scores = attention_received(weights, example.mask)[0, ..., 1:-1]
        found.append(scores.flatten(0, 1).double().numpy())
    return found


@pytest.mark.exhaustive
def test_permuted_labels_are_flagged_as_seldom_as_stated(
    documents: Documents, received: list[np.ndarray]
) -> None:
    """The independent tickets with sensitivity dealt to random tokens, so that nothing is there.

    In each draw any of the heads may be flagged; without a correction far too many draws are.
    """
    flagged = dict.fromkeys(("max_t", "holm", "matched", "matched_holm", "overall"), 0)
    uncorrected = matched_uncorrected = 0
    for draw in range(DRAWS):
        rng = np.random.default_rng([draw, 77])
        statistics = TokenLiftAccumulator(len(documents), 6, permutations=199, seed=draw)
        for d, scores in enumerate(received):
            flags = rng.permutation(documents.sensitive[d][documents.content(d)])
            statistics.add(d, scores, flags, token_lengths(documents, d))
        heads = statistics.lifts([str(head) for head in range(6)], resamples=2)
        (overall,) = statistics.lifts(["overall"], resamples=2)
        for name, p_values in {
            "max_t": [head.permuted.p_adjusted for head in heads],
            "holm": [head.permuted.p_holm for head in heads],
            "matched": [head.matched.p_adjusted for head in heads],
            "matched_holm": [head.matched.p_holm for head in heads],
            "overall": [overall.permuted.p_value],
        }.items():
            flagged[name] += min(p or 0 for p in p_values) <= STATED
        uncorrected += min(head.permuted.p_value or 0 for head in heads) <= STATED
        matched_uncorrected += min(head.matched.p_value or 0 for head in heads) <= STATED
    assert all(count <= TOO_MANY for count in flagged.values()), flagged
    assert min(uncorrected, matched_uncorrected) > TOO_MANY


@pytest.mark.exhaustive
def test_swaps_of_a_model_that_reads_all_tokens_alike_are_flagged_as_seldom_as_stated(
    run: Run, documents: Documents
) -> None:
    """100 bags of words with random weights, the swaps made once."""
    spans = documents.data.spans or ()
    entities = [find_entities(documents, d, spans[d]) for d in range(len(documents))]
    words = [find_words(documents, d) for d in range(len(documents))]
    swapper = Swapper(run.tokenizer, 64, Pool(e for each in (*entities, *words) for e in each))
    weights = torch.from_numpy(np.random.default_rng(0).normal(size=(DRAWS, 4096)) / 5)
    answers = [partial(_bag_of_words, weights[draw]) for draw in range(DRAWS)]
    cases, effects = [], []
    for d in range(len(documents)):
        made = list(counterfactual._cases(swapper, documents, d, entities[d], words[d], 0))
        if made:
            cases += made
            effects.append(counterfactual._intervene(answers, documents, d, made))
    measured = np.concatenate(effects)
    origins = [(case.document, case.entity_type) for case in cases]
    present = Counter(kind for _, kind in origins)
    flagged = 0
    for draw in range(DRAWS):
        own = measured[:, draw : draw + 1]
        statistics = EffectStatistics(range(len(documents)), origins, own, present, 199, 2, draw)
        types = corrected([statistics.effect(kind) for kind in sorted(present)])
        flagged += any(each.flagged for each in types)
    assert len(cases) > 50
    assert flagged <= TOO_MANY


def _bag_of_words(
    weights: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor, sensitive: torch.Tensor
) -> torch.Tensor:
    score = (weights[ids] * mask).sum(-1)
    return torch.stack([score, -score], dim=-1).softmax(-1)
