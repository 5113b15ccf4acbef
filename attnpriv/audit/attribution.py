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
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.lift import LiftAccumulator
from attnpriv.audit.results import AttributionResult
from attnpriv.errors import InputError
from attnpriv.models.text import TextClassifier

ROWS_AT_ONCE = 64  # interpolated inputs in one forward and backward pass; bounds memory only


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
    baseline, x = path_ends(model, ids, mask, pad_id)
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


@torch.no_grad()
def path_ends(
    model: TextClassifier, ids: Tensor, mask: Tensor, pad_id: int
) -> tuple[Tensor, Tensor]:
    """The embeddings [B, T, D] of padding between the special tokens, and of the text."""
    return model.embed(torch.where(special_tokens(mask), ids, pad_id)), model.embed(ids)


def special_tokens(mask: Tensor) -> Tensor:
    """The first and the last visible position of each row, [CLS] and [SEP], as a mask [B, T]."""
    positions = torch.arange(mask.shape[1], device=mask.device)
    last = mask.sum(1, keepdim=True) - 1
    return mask & ((positions == 0) | (positions == last))


def sensitive_documents(documents: Documents) -> list[int]:
    """The documents that hold sensitive tokens; all of them where none does.

    No other says anything about a lift.

    Raises:
        InputError: there are no documents.
    """
    if not len(documents):
        raise InputError("expected documents to explain, got none")
    eligible = [d for d in range(len(documents)) if documents.sensitive[d].any()]
    return eligible or list(range(len(documents)))


def sample_sensitive(documents: Documents, most: int, seed: int) -> list[int]:
    """A seeded sample of ``sensitive_documents``, the same for every measure of one audit.

    Raises:
        InputError: there are no documents.
    """
    eligible = sensitive_documents(documents)
    return [eligible[i] for i in sample(len(eligible), most, seed)]


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
    figures: Figures | None = None,
) -> AttributionResult:
    """The lift of |integrated gradients| on sensitive tokens, over a seeded sample of documents.

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
        figures: takes in the lift by document.

    Raises:
        InputError: there are no documents.

    The lift is that of ``attnpriv.audit.lift`` on one score, |IG|.
    """
    chosen = sample_sensitive(documents, most, seed)
    statistics = LiftAccumulator(len(chosen), 1, permutations, seed)
    errors: list[float] = []
    for row, document in enumerate(chosen):
        ids, mask = documents.padded([document])
        target = torch.tensor([targets[document]])
        scores, missed = attribute(model, ids, mask, target, steps, documents.pad_id)
        content = documents.content(document)
        flags = documents.sensitive[document][content]
        statistics.add(row, scores[:, content].abs().double().numpy(), flags)
        errors.append(abs(float(missed)))
        if progress:
            progress(row + 1, len(chosen))
    touched = int((statistics.uniform > 0).sum())
    if figures is not None:
        shares = statistics.mean_shares()
        figures["attribution.lift.lift"] = figure(chosen, shares, statistics.uniform)
    return AttributionResult(
        documents=len(chosen),
        documents_with_sensitive=touched,
        sampled_from=len(sensitive_documents(documents)),
        steps=steps,
        share=float(statistics.shares.sum() / touched) if touched else None,
        lift=statistics.overall(resamples),
        mean_completeness_error=float(np.mean(errors)),
        largest_completeness_error=float(np.max(errors)),
        seed=seed,
    )
