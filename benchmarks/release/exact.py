"""The strong attacker: it has the model and the visible text, and tries out each candidate value.

It knows with what chance each candidate gives each answer, sees one answer, and names the candidate
that gives it most likely; of several it names any. With every candidate equally often the true one,
it is right with the chance ``sum over answers of max over candidates of P(answer | candidate)``,
divided by the number of candidates, and no attacker is right more often (Smith 2009, the posterior
vulnerability). For answers that are not drawn, the sum is the number of different answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.release.answers import Array, Case
from benchmarks.release.policies import SAME, Policy, Shown, key_chances, label_chances

LABEL, PROBABILITIES, ATTENTION, GRADIENTS, ALL = (
    "label",
    "probabilities",
    "attention",
    "gradients",
    "all",
)


def found(chances: Array) -> float:
    """How often the attacker names the true candidate, from the chances of answers [N, answers].

    >>> found(np.eye(4)), found(np.ones((4, 1)))
    (1.0, 0.25)
    """
    return float(chances.max(0).sum() / len(chances))


def chances_by_part(cases: Sequence[Case], policy: Policy, layers: int) -> dict[str, Array]:
    """For each part of the answer, the chances of what is shown for each candidate, [N, answers].

    Args:
        cases: one text with each of N candidates.
        policy: what is shown.
        layers: of the model, whose rows come first among the scores.
    """
    parts = [_parts(policy.show(case), layers) for case in cases]
    chances = {name: _computed([each[name] for each in parts]) for name in parts[0]}
    if policy.epsilon is None:
        return chances
    label = np.stack([label_chances(case, policy.epsilon) for case in cases])
    key = np.stack([key_chances(case, policy.epsilon, layers - 1) for case in cases])
    return {
        **chances,
        LABEL: label,
        ATTENTION: both(chances[ATTENTION], key),
        ALL: both(chances[ALL], both(label, key)),
    }


def both(first: Array, second: Array) -> Array:
    """The chances of pairs of independent answers, [N, answers of the first times the second]."""
    pairs: Array = (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)
    return pairs


def _parts(shown: Shown, layers: int) -> dict[str, bytes]:
    """What is shown of each part, to as many decimals as another machine would agree on."""
    attention, gradients = shown.scores[:layers], shown.scores[layers:]
    parts = {
        LABEL: bytes([int(shown.probabilities.argmax())]),
        PROBABILITIES: _bytes(shown.probabilities),
        ATTENTION: _bytes(attention),
    }
    if len(gradients):
        parts[GRADIENTS] = _bytes(gradients)
    return {**parts, ALL: b"".join(parts.values())}


def _bytes(numbers: Array) -> bytes:
    return (numbers.round(SAME) + 0.0).tobytes()  # + 0.0: there is no -0.0


def _computed(outcomes: Sequence[bytes]) -> Array:
    numbers = {outcome: number for number, outcome in enumerate(dict.fromkeys(outcomes))}
    chances: Array = np.eye(len(numbers))[[numbers[each] for each in outcomes]]
    return chances
