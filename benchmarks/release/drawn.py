"""Do drawn answers beat the redacted one, which costs nothing? For labels, and for top positions.

Chances are computed, not drawn. Two priors for randomised response are tried: the redacted answer,
and how often each outcome is on top when public values stand in for all that is hidden, which is
free as well; its own favourite is therefore compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attnpriv.release import BoundedDraw, RandomisedResponse
from attnpriv.release.cost import MICRO
from benchmarks.release.answers import Array, Case
from benchmarks.release.faithfulness import mean, same_top
from benchmarks.release.policies import rank_correlation, shares

EPSILONS = (0.5, 1.0, 3.0)
Free = tuple[Array, Array]  # probabilities [K], and scores by entry [S, E]


def labels(
    cases: Sequence[Case], substitutes: Sequence[Sequence[Case]], truth: Sequence[int]
) -> list[dict[str, Any]]:
    """How often each answer names the full answer's label, and the right one.

    Args:
        cases: texts in which something is hidden.
        substitutes: of each, the same text with public values.
        truth: the right labels.
    """
    whole = [case.whole.probabilities for case in cases]
    redacted = [case.redacted.probabilities for case in cases]
    public = [[each.whole.probabilities for each in own] for own in substitutes]
    return [
        {**row, "right": mean([chances[label] for chances, label in zip(made, truth, strict=True)])}
        for row, made in _compared(whole, redacted, public)
    ]


def keys(
    cases: Sequence[Case], substitutes: Sequence[Sequence[Case]], layer: int
) -> list[dict[str, Any]]:
    """How often each answer names the entry that gets most attention in the full answer."""
    whole = [case.merged[layer, case.content] for case in cases]
    redacted = [case.redacted.scores[layer, case.content] for case in cases]
    public = [[each.merged[layer, each.content] for each in own] for own in substitutes]
    return [row for row, _ in _compared(whole, redacted, public)]


def free(
    cases: Sequence[Case], substitutes: Sequence[Sequence[Case]], truth: Sequence[int], layer: int
) -> dict[str, dict[str, Any]]:
    """How good answers are that cost nothing: from mask tokens, and from public values instead.

    Of several public values for what is hidden, probabilities and scores are averaged.
    """
    figures: dict[str, Callable[[Free, Case, int], float]] = {
        "same_label": lambda own, case, _: own[0].argmax() == case.whole.probabilities.argmax(),
        "right": lambda own, _, right: own[0].argmax() == right,
        "same_top": lambda own, case, _: same_top(case, own[1], layer),
        "rank_correlation": lambda own, case, _: rank_correlation(case, own[1], layer),
    }
    made: dict[str, list[Free]] = {
        "masked": [(case.redacted.probabilities, case.redacted.scores) for case in cases]
    }
    for count in (1, len(substitutes[0])):
        made[f"{count} substitutes"] = [
            (
                np.mean([each.whole.probabilities for each in own[:count]], axis=0),
                np.mean([each.merged for each in own[:count]], axis=0),
            )
            for own in substitutes
        ]
    return {
        name: {
            figure: mean([of(*each) for each in zip(answers, cases, truth, strict=True)])
            for figure, of in figures.items()
        }
        for name, answers in made.items()
    }


def _compared(
    whole: Sequence[Array], redacted: Sequence[Array], public: Sequence[Sequence[Array]]
) -> list[tuple[dict[str, Any], list[Array]]]:
    """Each way of answering: how often it names the top of the whole, and its chances."""
    priors = [_tops([own, *others]) for own, others in zip(redacted, public, strict=True)]
    made = {("redacted", None): [_top(own) for own in redacted]}
    made["substitutes", None] = [_top(own) for own in priors]
    for epsilon in EPSILONS:
        micro = round(epsilon * MICRO)
        made["response, redacted as prior", epsilon] = [
            shares(RandomisedResponse(own.tolist(), micro).weights(int(full.argmax())))
            for own, full in zip(redacted, whole, strict=True)
        ]
        made["response, prior of substitutes", epsilon] = [
            shares(RandomisedResponse(own.tolist(), micro).weights(int(full.argmax())))
            for own, full in zip(priors, whole, strict=True)
        ]
        made["bounded draw", epsilon] = [
            shares(BoundedDraw(own.tolist(), micro).weights(full.tolist()))
            for own, full in zip(redacted, whole, strict=True)
        ]
    return [
        (
            {
                "answer": name,
                "epsilon": epsilon,
                "same_as_full": mean(
                    [own[full.argmax()] for own, full in zip(chances, whole, strict=True)]
                ),
            },
            chances,
        )
        for (name, epsilon), chances in made.items()
    ]


def _top(scores: Array) -> Array:
    top: Array = np.eye(len(scores))[scores.argmax()]
    return top


def _tops(answers: Sequence[Array]) -> Array:
    tops: Array = np.sum([_top(each) for each in answers], axis=0)
    return tops
