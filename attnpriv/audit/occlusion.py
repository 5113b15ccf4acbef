"""Occlusion: what the answer loses when one token goes, a second opinion to integrated gradients.

Each content token in turn becomes the padding token, as in the baseline of ``integrated_gradients``
and at the same position, and the fall of the target's logit is its score. So both measures compare
the text with the same nothing, one by gradients along a path, the other by plain forward passes.

Not covered: what two tokens say only together, or each for itself as well as the other. Leaving out
one at a time does not see it, and there lies much of what the two measures disagree on.

Source: Zeiler and Fergus 2014 (arXiv:1311.2901), for texts Li, Monroe and Jurafsky 2016
(arXiv:1612.08220).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnpriv.audit.figures import Figures
from attnpriv.audit.gradients import Gradients
from attnpriv.audit.second_opinion import SecondOpinionResult, compare_with_gradients
from attnpriv.audit.subject import Answers, Progress, Subject
from attnpriv.explain.removal import occlusion
from attnpriv.modality import Embedded


def measure_occlusion(
    gradients: Gradients,
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> SecondOpinionResult:
    """The lift of |leave-one-out|, and its agreement with |IG|; see ``compare_with_gradients``."""

    def scorer(example: Embedded, target: Tensor) -> Tensor:
        with torch.inference_mode():
            return occlusion(gradients.model, example, target)

    return compare_with_gradients(
        gradients,
        scorer,
        "leave one out",
        most=most,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
        progress=progress,
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model: one a token."""
    return subject.taken(subject.options.ig_documents) * subject.mean_length


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> SecondOpinionResult:
    """As a measure of an audit."""
    options = subject.options
    return measure_occlusion(
        answers.gradients(subject),
        most=subject.affordable(options.ig_documents),
        progress=progress,
        **options.draws,
    )
