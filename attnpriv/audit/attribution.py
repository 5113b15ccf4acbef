"""Integrated gradients: which tokens moved the answer, by Captum.

Shapes: B batch, T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.audit.results import AttributionResult
from attnpriv.models.text import TextClassifier

ROWS_AT_ONCE = 64  # interpolated inputs in one forward and backward pass; bounds memory only
BATCH = 16


def integrated_gradients(
    model: TextClassifier,
    ids: Tensor,
    mask: Tensor,
    target: Tensor,
    steps: int = 32,
    *,
    pad_id: int = 0,
) -> Tensor:
    """How much each token moved the target's logit away from that of a text of padding tokens.

    The path runs straight from the baseline, in which every token between the first and the last
    is the padding token at the same position, to the text; Gauss-Legendre with ``steps`` points.

    Args:
        model: the classifier, in eval mode.
        ids: token ids [B, T].
        mask: True where a token is, [B, T].
        target: class numbers [B].
        steps: points on the path.
        pad_id: id of the padding token.

    Returns:
        Scores [B, T], summed over D; zero at padding and at the special tokens, which both ends of
        the path share. Their sum is the difference of the two logits up to the quadrature's error.

    Source: Sundararajan, Taly and Yan 2017 (arXiv:1703.01365), equation 1. Not covered: another
    baseline gives other scores; they explain this model's answer, not the world.
    """
    return attribute(model, ids, mask, target, steps, pad_id)[0]


def attribute(
    model: TextClassifier, ids: Tensor, mask: Tensor, target: Tensor, steps: int, pad_id: int
) -> tuple[Tensor, Tensor]:
    """The scores [B, T] of ``integrated_gradients``, and by how much each text's sum misses [B]."""
    with torch.no_grad():
        x = model.embed(ids)
        baseline = model.embed(torch.where(special_tokens(mask), ids, pad_id))
    attributions, delta = IntegratedGradients(model.forward_embedded).attribute(
        x,
        baselines=baseline,
        target=target,
        additional_forward_args=(mask,),
        n_steps=steps,
        internal_batch_size=max(len(ids), ROWS_AT_ONCE),
        return_convergence_delta=True,
    )
    return cast(Tensor, attributions.sum(-1).detach()), cast(Tensor, delta.detach())


def special_tokens(mask: Tensor) -> Tensor:
    """The first and the last visible position of each row, [CLS] and [SEP], as a mask [B, T]."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(1, keepdim=True) - 1
    return mask & ((positions == 0) | (positions == last))


def measure_attribution(
    model: TextClassifier,
    documents: Documents,
    targets: Sequence[int],
    *,
    most: int,
    steps: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> AttributionResult:
    """The lift of |integrated gradients| on sensitive tokens, over a seeded sample of documents.

    Drawn from the documents that hold sensitive tokens, for no other says anything about the lift.

    Args:
        model: the classifier.
        documents: tokenised held-out records.
        targets: for each of them, the class whose logit is explained.
        most: how many documents to explain at most.
        steps: points on each path.
        permutations: of the null.
        resamples: of the bootstrap.
        seed: of the sample, the null and the bootstrap.
        progress: called with documents done and their number.

    The lift is that of ``attnpriv.audit.lift`` on one score, |IG|.
    """
    eligible = [d for d in range(len(documents)) if documents.sensitive[d].any()]
    eligible = eligible or list(range(len(documents)))
    chosen = [eligible[i] for i in sample(len(eligible), most, seed)]
    position = {document: i for i, document in enumerate(chosen)}
    statistics = LiftAccumulator(len(chosen), 1, permutations, seed)
    errors: list[float] = []
    for batch, ids, mask in documents.batches(chosen, BATCH):
        target = torch.tensor([targets[d] for d in batch])
        scores, missed = attribute(model, ids, mask, target, steps, documents.pad_id)
        errors += missed.abs().tolist()
        for document, row in zip(batch, scores.abs().double().numpy(), strict=True):
            content = documents.content(document)
            flags = documents.sensitive[document][content]
            statistics.add(position[document], row[None, content], flags)
        if progress:
            progress(len(errors), len(chosen))
    touched = int((statistics.uniform > 0).sum())
    return AttributionResult(
        documents=len(chosen),
        documents_with_sensitive=touched,
        sampled_from=len(eligible),
        steps=steps,
        share=float(statistics.shares.sum() / touched) if touched else None,
        lift=statistics.overall(resamples),
        mean_completeness_error=float(np.mean(errors)),
        largest_completeness_error=float(np.max(errors)),
        seed=seed,
    )
