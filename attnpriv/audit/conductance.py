"""Conductance: does an answer go through the attention that personal data gets? Layer by layer.

A key's score in a layer is the sum of |conductance| over heads and queries; see
``attnpriv.explain.gradients.attention_conductance``.

Shapes: L layers, H heads, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from attnpriv.audit.attribution import sample_sensitive, sensitive_documents
from attnpriv.audit.documents import Documents
from attnpriv.audit.figures import Figures
from attnpriv.audit.matched import TokenLift, TokenLiftAccumulator, token_lengths
from attnpriv.audit.rollout import layer_names
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.explain.gradients import attention_conductance
from attnpriv.modality import AttentionModel


@dataclass(frozen=True)
class ConductanceResult:
    """Conductance through each layer's attention weights: its share on sensitive keys and lift.

    ``shares[layer]`` is the mean over the documents that hold sensitive tokens; None without such.
    """

    documents: int
    sampled_from: int
    steps: int
    shares: tuple[float | None, ...]
    layers: tuple[TokenLift, ...]
    seed: int


def measure_conductance(
    model: AttentionModel,
    documents: Documents,
    targets: Sequence[int],
    *,
    most: int,
    steps: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> ConductanceResult:
    """The lift of |conductance| on sensitive keys in each layer, over a seeded sample.

    The sample is that of ``measure_attribution`` with the same number and seed. p-values are
    corrected over the layers.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        targets: for each of them, the class whose logit is explained.
        most: how many documents to explain at most.
        steps: intervals on each path.
        permutations: of the nulls.
        resamples: of the bootstrap over documents.
        seed: of the sample, the nulls and the bootstrap.
        progress: called with documents done and their number.

    Raises:
        InputError: there are no documents.
    """
    chosen = sample_sensitive(documents, most, seed)
    layers = model.attention_shape[0]
    lifts = TokenLiftAccumulator(len(chosen), layers, permutations, seed)
    for row, document in enumerate(chosen):
        example = documents.embedded(model, document)
        conductance = attention_conductance(model, example, targets[document], steps)
        scores = conductance.abs().sum((1, 2), dtype=torch.float64).numpy()
        flags = documents.of_content(document, documents.sensitive[document])
        lengths = token_lengths(documents, document)
        lifts.add(row, documents.of_content(document, scores), flags, lengths)
        if progress:
            progress(row + 1, len(chosen))
    return ConductanceResult(
        documents=len(chosen),
        sampled_from=len(sensitive_documents(documents)),
        steps=steps,
        shares=lifts.mean_shares(),
        layers=lifts.lifts(layer_names(layers), resamples),
        seed=seed,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    options = subject.options
    return FORTH_AND_BACK * subject.taken(options.ig_documents) * (options.ig_steps + 1)


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> ConductanceResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_conductance(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=subject.affordable(options.ig_documents),
        steps=options.ig_steps,
        progress=progress,
        **options.draws,
    )
