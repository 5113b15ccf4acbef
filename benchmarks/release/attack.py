"""Both attackers against every policy, for one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from attnpriv.audit.statistics import auc
from attnpriv.estimates import wilson
from benchmarks.release import exact, learned, policies
from benchmarks.release.answers import Array, Case, merge
from benchmarks.release.faithfulness import mean, rank_correlation, same_top, short
from benchmarks.release.policies import (
    Policy,
    Shown,
    key_chances,
    label_chances,
    shown_once,
)

SEED = 0


def value_attack(
    secrets: Sequence[Sequence[Case]], policy: Policy, layers: int
) -> dict[str, dict[str, float | None]]:
    """How often the strong attacker finds the value, by the part of the answer that it sees.

    Args:
        secrets: texts, each with every candidate.
        policy: what is shown.
        layers: of the model.
    """
    found: dict[str, list[float]] = {}
    for cases in secrets:
        for part, chances in exact.chances_by_part(cases, policy, layers).items():
            found.setdefault(part, []).append(exact.found(chances))
    return {part: mean(each) for part, each in found.items()}


def learned_value(
    secrets: Sequence[Sequence[Case]], spans: Sequence[int], policy: Policy, layers: int
) -> dict[str, float | None]:
    """How often a classifier names the value, which it knew in other texts.

    Args:
        secrets: texts of one type, each with every candidate.
        spans: the entry of the value in each of the texts.
        policy: what is shown.
        layers: of the model.
    """
    shown = [
        [shown_once(case, policy, layers, SEED + number) for number, case in enumerate(cases)]
        for cases in secrets
    ]
    features, texts = learned.stacked(
        [
            np.stack([learned.entity(each, entry) for each in own])
            for own, entry in zip(shown, spans, strict=True)
        ]
    )
    values = np.concatenate([np.arange(len(own)) for own in shown])
    chances = learned.predicted(features, values, texts, learned.linear)
    hits = chances.argmax(1) == values
    return mean([hits[texts == text].mean() for text in np.unique(texts)])


def learned_attacks(cases: Sequence[Case], policy: Policy, layers: int) -> dict[str, Any]:
    """What a classifier finds of texts from the numbers alone, beside what chance would.

    Presence is whether anything is hidden in a text, the type is that of one hidden entry, drawn
    for each text, and the position is found if the entry that looks most like personal data is.
    """
    rng = np.random.default_rng(SEED)
    shown = [shown_once(case, policy, layers, SEED + number) for number, case in enumerate(cases)]
    present = np.array([int(case.hidden.any()) for case in cases])
    return {
        "presence": _presence(shown, present),
        "presence, shuffled": _presence(shown, rng.permutation(present)),
        "position": _position(shown, cases),
        "type": _type(shown, cases, rng),
    }


def _presence(shown: Sequence[Shown], present: Array) -> dict[str, float | None]:
    features = np.stack([learned.text(each) for each in shown])
    chances = learned.predicted(features, present, np.arange(len(shown)), learned.forest)[:, 1]
    return short(asdict(auc(chances[present == 1], chances[present == 0])))


def _position(shown: Sequence[Shown], cases: Sequence[Case]) -> dict[str, Any]:
    pairs = [(own, case) for own, case in zip(shown, cases, strict=True) if case.hidden.any()]
    inside = [case.content[own.entries] for own, case in pairs]
    features, texts = learned.stacked(
        [learned.positions(own)[here] for (own, _), here in zip(pairs, inside, strict=True)]
    )
    right = np.concatenate(
        [case.hidden[own.entries][here] for (own, case), here in zip(pairs, inside, strict=True)]
    )
    chances = learned.predicted(features, right.astype(np.int64), texts, learned.boosted)[:, 1]
    by_chance = [right[texts == text].mean() for text in np.unique(texts)]
    return {
        **mean(learned.top_is_right(chances, right, texts)),
        "chance": round(float(np.mean(by_chance)), 4),
    }


def _type(
    shown: Sequence[Shown], cases: Sequence[Case], rng: np.random.Generator
) -> dict[str, Any]:
    features, kinds = [], []
    for own, case in zip(shown, cases, strict=True):
        hidden = np.flatnonzero(case.hidden)
        if len(hidden):
            entry = int(rng.choice(hidden))
            features.append(learned.entity(own, entry))
            kinds.append(case.kinds[entry][0])
    _, numbers, counts = np.unique(kinds, return_inverse=True, return_counts=True)
    chances = learned.predicted(
        np.stack(features), numbers, np.arange(len(features)), learned.forest
    )
    right = int((chances.argmax(1) == numbers).sum())
    return {
        **short(asdict(wilson(right, len(numbers)))),
        "chance": round(float(counts.max() / len(numbers)), 4),
    }


def worth(cases: Sequence[Case], policy: Policy, layers: int) -> dict[str, Any]:
    """How much of the full answer is in what a policy shows of texts with something hidden.

    Where a position is drawn, it takes the place of the top of the scores, and its label that of
    the label.
    """
    last = layers - 1
    shown = [policy.show(case) for case in cases]
    merged = [
        merge(own.scores, own.entries, len(case.kinds))
        for own, case in zip(shown, cases, strict=True)
    ]
    found = {
        "same_label": [
            float(own.probabilities.argmax() == case.whole.probabilities.argmax())
            for own, case in zip(shown, cases, strict=True)
        ],
        "same_top": [same_top(case, own, last) for own, case in zip(merged, cases, strict=True)],
        "rank_correlation": [
            rank_correlation(case, own, last) for own, case in zip(merged, cases, strict=True)
        ],
    }
    if policy.epsilon is not None:
        found["same_label"] = [
            label_chances(case, policy.epsilon)[case.whole.probabilities.argmax()] for case in cases
        ]
        found["same_top"] = [
            key_chances(case, policy.epsilon, last)[
                np.where(case.content, case.merged[last], -1.0).argmax()
            ]
            for case in cases
        ]
    return {name: mean(values) for name, values in found.items()}


def words_tell(cases: Sequence[Case], policy: Policy) -> float:
    """In what share of these texts the words that are shown hold a part of what is to be hidden."""
    match policy.words:
        case policies.EVERYTHING:
            return 1.0
        case policies.PLACEHOLDERS:
            return 0.0
    shown = [policy.show(each).scores[:, each.hidden[each.entries]] for each in cases]
    return float(np.mean([(scores != 0).any() for scores in shown]))
