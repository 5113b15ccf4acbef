from __future__ import annotations

import copy

import torch

from attnpriv.audit.attribution import (
    attribute,
    integrated_gradients,
    measure_attribution,
    special_tokens,
)
from attnpriv.audit.documents import Documents
from attnpriv.models.text import TextClassifier


def _batch(documents: Documents) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    ids, mask = documents.padded([0, 1, 2])
    return ids, mask, torch.tensor([1, 4, 7])


def _riemann(
    model: TextClassifier, ids: torch.Tensor, mask: torch.Tensor, target: torch.Tensor, steps: int
) -> torch.Tensor:
    """Integrated gradients by the midpoint rule, one point after the other."""
    x = model.embed(ids)
    base = model.embed(torch.where(special_tokens(mask), ids, 0))
    total = torch.zeros_like(x)
    for step in range(steps):
        at = (base + (step + 0.5) / steps * (x - base)).requires_grad_()
        logits = model.forward_embedded(at, mask).gather(1, target[:, None]).sum()
        total += torch.autograd.grad(logits, at)[0]
    return ((x - base) * total / steps).sum(-1)


def test_agrees_with_a_riemann_sum(model: TextClassifier, documents: Documents) -> None:
    ids, mask, target = _batch(documents)
    ours = integrated_gradients(model, ids, mask, target, steps=300)
    expected = _riemann(model, ids, mask, target, steps=600)
    torch.testing.assert_close(ours, expected, atol=0.02 * float(expected.abs().max()), rtol=0)


def test_complete_and_zero_where_nothing_moves(model: TextClassifier, documents: Documents) -> None:
    ids, mask, target = _batch(documents)
    scores, missed = attribute(model, ids, mask, target, 300, pad_id=0)
    base = torch.where(special_tokens(mask), ids, 0)
    gap = (model(ids, mask) - model(base, mask)).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(scores.sum(1) - gap, missed, atol=1e-3, rtol=0)
    assert float(missed.abs().max()) < 0.05 * float(gap.abs().max())
    assert (scores[~mask] == 0).all()
    assert (scores[special_tokens(mask)] == 0).all()
    assert not scores.requires_grad


def test_neighbours_in_the_batch_do_not_matter(model: TextClassifier, documents: Documents) -> None:
    ids, mask, target = _batch(documents)
    together = integrated_gradients(model, ids, mask, target)
    for row in range(3):
        n = int(mask[row].sum())
        alone = integrated_gradients(
            model, ids[row : row + 1, :n], mask[row : row + 1, :n], target[row : row + 1]
        )
        torch.testing.assert_close(together[row, :n], alone[0], atol=1e-4, rtol=1e-3)


def test_special_tokens_are_the_ends() -> None:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    expected = torch.tensor([[True, False, False, True], [True, True, False, False]])
    assert torch.equal(special_tokens(mask), expected)


def test_measure_counts_and_samples(model: TextClassifier, documents: Documents) -> None:
    settings = {"steps": 8, "permutations": 50, "resamples": 50, "seed": 0}
    targets = [0] * len(documents)
    result = measure_attribution(model, documents, targets, most=11, **settings)
    eligible = sum(flags.any() for flags in documents.sensitive)
    assert (result.documents, result.sampled_from) == (11, eligible)
    assert 11 < eligible < len(documents)
    assert result.documents_with_sensitive == 11
    assert 0 < (result.share or 0) < 1
    assert (result.lift.lift.low or 9) <= (result.lift.lift.value or 0)
    again = measure_attribution(model, documents, targets, most=11, **settings)
    assert again == result


def test_a_model_that_reads_only_sensitive_tokens_is_found(
    model: TextClassifier, documents: Documents
) -> None:
    """Positive control: embeddings of all other tokens are cut off from the answer."""
    sensitive_ids = {
        documents.encodings[d].ids[t]
        for d in range(len(documents))
        for t in documents.sensitive[d].nonzero()[0]
    }
    leaky = copy.deepcopy(model)
    words = leaky.words.weight
    deaf = [i for i in range(len(words)) if i not in sensitive_ids]
    words[deaf] = words[0].clone()  # read like padding
    result = measure_attribution(
        leaky,
        documents,
        [0] * len(documents),
        most=40,
        steps=8,
        permutations=200,
        resamples=50,
        seed=0,
    )
    assert (result.lift.lift.low or 0) > 1.1
    assert (result.lift.p_value or 1) < 0.05
