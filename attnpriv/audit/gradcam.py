"""GradCAM and HiResCAM: where the feature maps lie that speak for the answer.

See ``attnpriv.explain.gradients.grad_cam``, which says what they do not cover; above all, a
position of the last layer has seen its neighbours, so that the maps are coarser than integrated
gradients, and GradCAM is blind where a head reads places apart and its gradients cancel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from attnpriv.audit.figures import Figures
from attnpriv.audit.second_opinion import SecondOpinionResult, compare_with_gradients
from attnpriv.audit.subject import FORTH_AND_BACK, Answers, Progress, Subject
from attnpriv.explain.gradients import grad_cam


@dataclass(frozen=True)
class GradCamResult:
    """Both maps beside integrated gradients on the same documents.

    Attributes:
        gradcam: one weight a channel.
        hirescam: a weight for each number of the feature maps.
    """

    gradcam: SecondOpinionResult
    hirescam: SecondOpinionResult


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return 2 * FORTH_AND_BACK * subject.taken(subject.options.ig_documents)


def run(subject: Subject, answers: Answers, progress: Progress, figures: Figures) -> GradCamResult:
    """As a measure of an audit."""
    model, options = subject.run.model, subject.options
    assert model.feature_maps is not None  # it needs them
    scorer = partial(grad_cam, model, model.feature_maps)
    gradcam, hirescam = (
        compare_with_gradients(
            answers.gradients(subject),
            partial(scorer, by_place=by_place),
            name,
            most=subject.affordable(options.ig_documents),
            progress=progress,
            **options.draws,
        )
        for name, by_place in (("GradCAM", False), ("HiResCAM", True))
    )
    return GradCamResult(gradcam, hirescam)
