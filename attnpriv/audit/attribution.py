"""Integrated gradients: do the tokens that moved the answer hold personal data?

Shapes: B batch, T tokens, D model width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.lift import Lift, LiftAccumulator
from attnpriv.audit.subject import Answers, Pass, Progress, Subject
from attnpriv.errors import InputError


@dataclass(frozen=True)
class AttributionResult:
    """Share of |integrated gradients| on sensitive tokens, and its lift.

    ``unconverged`` counts the documents among them whose scores do not add up to within 5 % of what
    they should; their share counts nevertheless, by the scores as they are.
    """

    documents: int
    documents_with_sensitive: int
    sampled_from: int
    steps: int
    share: float | None
    lift: Lift
    mean_completeness_error: float
    largest_completeness_error: float
    unconverged: int
    seed: int


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
    gradients: Gradients,
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> AttributionResult:
    """The lift of |integrated gradients| on sensitive tokens, over a seeded sample of documents.

    Args:
        gradients: of the documents to sample from.
        most: how many documents to explain at most.
        permutations: of the null.
        resamples: of the bootstrap.
        seed: of the sample, the null and the bootstrap.
        progress: called with documents done and their number.
        figures: takes in the lift by document.

    Raises:
        InputError: there are no documents.

    The lift is that of ``attnpriv.audit.lift`` on one score, |IG|.
    """
    documents = gradients.documents
    chosen = sample_sensitive(documents, most, seed)
    statistics = LiftAccumulator(len(chosen), 1, permutations, seed)
    errors: list[float] = []
    unconverged = 0
    for row, document in enumerate(chosen):
        found = gradients[document]
        scores = documents.of_content(document, found.scores.abs().double().numpy())
        flags = documents.of_content(document, documents.sensitive[document])
        statistics.add(row, scores, flags)
        errors.append(float(found.error))
        unconverged += not found.converged
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
        steps=gradients.steps,
        share=float(statistics.shares.sum() / touched) if touched else None,
        lift=statistics.overall(resamples),
        mean_completeness_error=fmean(errors),
        largest_completeness_error=max(errors),
        unconverged=unconverged,
        seed=seed,
    )


def explains(subject: Subject, passed: Pass) -> list[int]:
    """The documents that ``run`` explains, as does that of ``attnpriv.audit.occlusion``."""
    options = subject.options
    return sample_sensitive(
        subject.documents, subject.affordable(options.ig_documents), options.seed
    )


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> AttributionResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_attribution(
        answers.gradients(subject),
        most=subject.affordable(options.ig_documents),
        progress=progress,
        figures=figures,
        **options.draws,
    )
