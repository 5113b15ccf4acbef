"""Occlusion: what the answer loses when one token goes, a second opinion to integrated gradients.

Each content token in turn becomes the padding token, as in the baseline of ``integrated_gradients``
and at the same position, and the fall of the target's logit is its score. So both measures compare
the text with the same nothing, one by gradients along a path, the other by plain forward passes.

Not covered: what two tokens say only together, or each for itself as well as the other. Leaving out
one at a time does not see it, and there lies much of what the two measures disagree on.

Source: Zeiler and Fergus 2014 (arXiv:1311.2901), for texts Li, Monroe and Jurafsky 2016
(arXiv:1612.08220).

Shapes: B batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from attnpriv.audit.attribution import sample_sensitive, sensitive_documents
from attnpriv.audit.correlation import RankCorrelations
from attnpriv.audit.figures import Figures
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.estimates import Estimate
from attnpriv.explain.removal import occlusion


@dataclass(frozen=True)
class OcclusionResult:
    """Share of |leave-one-out| on sensitive tokens, and its agreement with |IG|.

    Attributes:
        documents: that were explained, each with one forward pass a content token.
        sampled_from: documents they were drawn from.
        share: mean share of |leave-one-out| on sensitive tokens.
        lift: of |leave-one-out|.
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


def measure_occlusion(
    gradients: Gradients,
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> OcclusionResult:
    """The lift of |leave-one-out| on sensitive tokens, beside that of |IG|, and how they agree.

    The sample is that of ``measure_attribution`` with the same number and seed. Where no document
    holds sensitive tokens, lifts are undefined and the agreement is still measured.

    Args:
        gradients: integrated gradients of the documents to sample from.
        most: how many documents to explain at most.
        permutations: of the nulls.
        resamples: of the bootstrap over documents.
        seed: of the sample, the nulls and the bootstrap.
        progress: called with documents done and their number.

    Raises:
        InputError: there are no documents.
    """
    model, documents = gradients.model, gradients.documents
    chosen = sample_sensitive(documents, most, seed)
    lifts = TokenLiftAccumulator(len(chosen), 2, permutations, seed)
    agreement = RankCorrelations(len(chosen), permutations, seed)
    for row, document in enumerate(chosen):
        example = documents.embedded(model, document)
        with torch.inference_mode():
            effects = occlusion(model, example, torch.tensor([gradients.targets[document]]))
        both = torch.cat([effects, gradients[document].scores]).abs().double().numpy()
        scores = documents.of_content(document, both)
        flags = documents.of_content(document, documents.sensitive[document])
        lifts.add(row, scores, flags, token_lengths(documents, document))
        agreement.add(row, document, *scores)
        if progress:
            progress(row + 1, len(chosen))
    correlation = agreement.result(resamples)
    left_out, integrated = lifts.lifts(["leave one out", "integrated gradients"], resamples)
    return OcclusionResult(
        documents=len(chosen),
        sampled_from=len(sensitive_documents(documents)),
        share=lifts.mean_shares()[0],
        lift=left_out,
        integrated_gradients=integrated,
        rank_correlation=correlation.mean,
        rank_documents=correlation.documents,
        null_low=correlation.null_low,
        null_high=correlation.null_high,
        rank_p_value=correlation.p_value,
        steps=gradients.steps,
        seed=seed,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model: one a token."""
    return subject.taken(subject.options.ig_documents) * subject.mean_length


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> OcclusionResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_occlusion(
        answers.gradients(subject),
        most=subject.affordable(options.ig_documents),
        progress=progress,
        **options.draws,
    )
