"""A second opinion to integrated gradients: its lift on the same documents, and how both agree.

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from attnpriv.audit.attribution import sample_sensitive, sensitive_documents
from attnpriv.audit.correlation import RankCorrelations
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.estimates import Estimate
from attnpriv.modality import Embedded

Scorer = Callable[[Embedded, Tensor], Tensor]
"""B embedded examples and target classes [B] to scores [B, T]."""


@dataclass(frozen=True)
class SecondOpinionResult:
    """Share of a method's absolute scores on sensitive tokens, and its agreement with |IG|.

    Attributes:
        documents: that were explained.
        sampled_from: documents they were drawn from.
        share: mean share of the method's scores on sensitive tokens.
        lift: of the method.
        integrated_gradients: lift of |IG| on the same documents.
        rank_correlation: mean over documents of Spearman's ρ with |IG| over content tokens.
        rank_documents: documents in which ρ is defined.
        null_low: 2.5 % quantile of the mean ρ when the scores are permuted among the tokens.
        null_high: 97.5 % quantile of the same.
        rank_p_value: two-sided p-value of the mean ρ.
        steps: points on each path of IG.
        seed: of the sample, the nulls and the bootstrap.
    """

    documents: int
    sampled_from: int
    share: float | None
    lift: TokenLift
    integrated_gradients: TokenLift
    rank_correlation: Estimate
    rank_documents: int
    null_low: float | None
    null_high: float | None
    rank_p_value: float | None
    steps: int
    seed: int


def compare_with_gradients(
    gradients: Gradients,
    scorer: Scorer,
    name: str,
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> SecondOpinionResult:
    """The lift of a method on sensitive tokens, beside that of |IG|, and how they agree.

    The sample is that of ``measure_attribution`` with the same number and seed. Where no document
    holds sensitive tokens, lifts are undefined and the agreement is still measured.

    Args:
        gradients: integrated gradients of the documents to sample from.
        scorer: the method; its absolute scores count.
        name: of the method.
        most: how many documents to explain at most.
        permutations: of the nulls.
        resamples: of the bootstrap over documents.
        seed: of the sample, the nulls and the bootstrap.
        progress: called with documents done and their number.

    Raises:
        InputError: there are no documents.
    """
    documents = gradients.documents
    chosen = sample_sensitive(documents, most, seed)
    lifts = TokenLiftAccumulator(len(chosen), 2, permutations, seed)
    agreement = RankCorrelations(len(chosen), permutations, seed)
    for row, document in enumerate(chosen):
        example = documents.embedded(gradients.model, document)
        own = scorer(example, torch.tensor([gradients.targets[document]]))
        both = torch.cat([own, gradients[document].scores]).abs().double().numpy()
        scores = documents.of_content(document, both)
        flags = documents.of_content(document, documents.sensitive[document])
        lifts.add(row, scores, flags, token_lengths(documents, document))
        agreement.add(row, document, *scores)
        if progress:
            progress(row + 1, len(chosen))
    correlation = agreement.result(resamples)
    measured, integrated = lifts.lifts([name, "integrated gradients"], resamples)
    return SecondOpinionResult(
        documents=len(chosen),
        sampled_from=len(sensitive_documents(documents)),
        share=lifts.mean_shares()[0],
        lift=measured,
        integrated_gradients=integrated,
        rank_correlation=correlation.mean,
        rank_documents=correlation.documents,
        null_low=correlation.null_low,
        null_high=correlation.null_high,
        rank_p_value=correlation.p_value,
        steps=gradients.steps,
        seed=seed,
    )
