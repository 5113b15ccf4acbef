"""Does a text hold a type of personal data? A guess from the released numbers.

The guesser learns on known rows what probabilities, attention and attributions of texts with such
data look like, by logistic regression. Beside it stands one that sees the label alone and says what
most known rows with that label are. What placeholders say openly, the type, is used by neither.

Claim: none about privacy. Not covered: attributes that the file does not mark; types that the label
gives away in 95 % of the known rows; all but the three types of which it tells least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import log
from random import Random

from attnpriv.estimates import Control, Estimate, percentile_interval, quantile
from attnpriv.rates import HALF, exact_interval
from attnpriv.verdicts import ERROR, gravity, judge
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.attack_results import AttributeGuess, AttributesResult
from attnpriv_client.audit.explained import (
    attention_features,
    attention_maps,
    attribution_features,
    attributions,
)
from attnpriv_client.audit.fitting import fitted_scores, half_of
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.statistics import resampled_ratios
from attnpriv_client.domain import Prediction

LEAST = 8  # rows
MOST_TYPES = 3
LEAST_ERROR = 0.05  # of the guess by the label: with less, there is too little to gain
NULL_ERROR = 0.0005
EXPECTED = (
    "the attribute planted as a number: more right guesses of each than by the label",
    "the attribute shuffled among the known rows: no more right guesses, at "
    f"{100 * (1 - NULL_ERROR):g} % confidence",
)
NO_TYPE = (
    "for each type of personal data, a guess by the label is right in 95 % of the known rows or "
    "more, so that there is too little to gain"
)
_TINY = 2.0**-126


@dataclass(frozen=True)
class Seen:
    """What a guesser sees of one row.

    Attributes:
        types: the types of personal data in it.
        label: the predicted label.
        sources: by their names, what was released.
    """

    types: frozenset[str]
    label: str
    sources: dict[str, list[float]]


def attributes(answered: Sequence[Answered], seed: int) -> AttributesResult:
    """Guess which rows hold personal data of each type, with both controls.

    Args:
        answered: the rows.
        seed: of the halves, the controls and the bootstrap.
    """
    rows = {a.row.text: row for a in answered if (row := _seen(a)) is not None}
    if not rows:
        raise NotRunError("no answered row has spans of personal data")
    kinds = [{name: len(own) for name, own in row.sources.items()} for row in rows.values()]
    usual = max(kinds, key=kinds.count)
    if not usual:
        raise NotRunError("the server releases labels alone")
    alike = [row for row, kind in zip(rows.values(), kinds, strict=True) if kind == usual]
    if len(alike) < LEAST:
        raise NotRunError(f"expected at least {LEAST} rows with the same scores, got {len(alike)}")
    half = half_of(len(alike), seed)
    return measure(
        list(compress(alike, half)), list(compress(alike, (not is_in for is_in in half))), seed
    )


def _seen(answered: Answered) -> Seen | None:
    answer = answered.prediction or (answered.explanation and answered.explanation.prediction)
    if answered.row.spans is None or not answer:
        return None
    types = frozenset(span.entity_type for span in answered.row.spans)
    return Seen(types, answer.label, _sources(answered, answer))


def _sources(answered: Answered, answer: Prediction) -> dict[str, list[float]]:
    found = {}
    if answer.probabilities:
        found["probabilities"] = [log(max(p, _TINY)) for p in answer.probabilities.values()]
    explanation = answered.explanation
    if explanation is not None and (maps := attention_maps(explanation)):
        found["attention"] = attention_features(maps, len(explanation.special_tokens))
    if explanation is not None and (scores := attributions(explanation)):
        found["attributions"] = attribution_features(scores)
    return found


def measure(known: Sequence[Seen], asked: Sequence[Seen], seed: int) -> AttributesResult:
    """As ``attributes``, from rows that are known and others."""
    chosen = _chosen_types(known)
    if not chosen:
        raise NotRunError(NO_TYPE)
    sources = list(known[0].sources)
    positive, null = _controls(known, asked, chosen, seed)
    valid = positive.passed and null.passed
    error = ERROR / (len(chosen) * len(sources))
    guesses = tuple(
        _guess(known, asked, name, source, error, valid, seed)
        for name in chosen
        for source in sources
    )
    gravest = max((each.judgement for each in guesses), key=gravity)
    return AttributesResult(len(known), len(asked), guesses, gravest, positive, null, valid)


def _truth(rows: Sequence[Seen], name: str) -> list[bool]:
    return [name in row.types for row in rows]


def _chosen_types(known: Sequence[Seen]) -> list[str]:
    names = sorted(frozenset[str]().union(*(row.types for row in known)))
    errors = {
        name: 1 - sum(_right(_by_label(known, name, known), _truth(known, name))) / len(known)
        for name in names
    }
    fitting = [name for name in names if errors[name] >= LEAST_ERROR]
    return sorted(fitting, key=lambda name: -errors[name])[:MOST_TYPES]


def _by_label(known: Sequence[Seen], name: str, asked: Sequence[Seen]) -> list[bool]:
    """What most known rows with the same label are; without any, what most of all are."""
    truth = _truth(known, name)
    usual = {}
    for label in {row.label for row in known}:
        own = [t for t, row in zip(truth, known, strict=True) if row.label == label]
        usual[label] = 2 * sum(own) >= len(own)
    overall = 2 * sum(truth) >= len(truth)
    return [usual.get(row.label, overall) for row in asked]


def _right(guessed: Sequence[bool], truth: Sequence[bool]) -> list[bool]:
    return [guess == own for guess, own in zip(guessed, truth, strict=True)]


def _by_numbers(
    known: Sequence[Sequence[float]], truth: Sequence[bool], asked: Sequence[Sequence[float]]
) -> list[bool]:
    if len({*truth}) == 1:
        return [truth[0]] * len(asked)
    return [score > 0 for score in fitted_scores(known, truth, asked)]


def _guess(
    known: Sequence[Seen],
    asked: Sequence[Seen],
    name: str,
    source: str,
    error: float,
    valid: bool,
    seed: int,
) -> AttributeGuess:
    truth = _truth(asked, name)
    rows, others = ([row.sources[source] for row in group] for group in (known, asked))
    right = _right(_by_numbers(rows, _truth(known, name), others), truth)
    blind = _right(_by_label(known, name, asked), truth)
    gain, drawn = _gain(right, blind, seed)
    ends = quantile(drawn, error), quantile(drawn, 1 - error)
    placed = ("gain in right guesses", Estimate(gain, *ends), 0.0, None)
    return AttributeGuess(
        entity_type=name,
        source=source,
        share=sum(truth) / len(truth),
        by_label=_share(blind),
        accuracy=_share(right),
        gain=percentile_interval(gain, drawn),
        judgement=judge([placed], None, valid=valid),
    )


def _share(right: Sequence[bool]) -> Estimate:
    return Estimate(sum(right) / len(right), *exact_interval(sum(right), len(right), HALF))


def _gain(right: Sequence[bool], blind: Sequence[bool], seed: int) -> tuple[float, list[float]]:
    more = [float(ours) - theirs for ours, theirs in zip(right, blind, strict=True)]
    return sum(more) / len(more), resampled_ratios(more, [1.0] * len(more), seed)


def _controls(
    known: Sequence[Seen], asked: Sequence[Seen], chosen: Sequence[str], seed: int
) -> tuple[Control, Control]:
    rng, planted, shuffled = Random(f"{seed} attributes"), [], []
    for name in chosen:
        truth, own = _truth(known, name), _truth(asked, name)
        blind = _right(_by_label(known, name, asked), own)
        numbers = [[[float(each)] for each in group] for group in (truth, own)]
        guessed = _by_numbers(numbers[0], truth, numbers[1])
        planted.append(_gain(_right(guessed, own), blind, seed))
        for source in known[0].sources:
            other = rng.sample(truth, len(truth))
            rows, others = ([row.sources[source] for row in group] for group in (known, asked))
            guessed = _by_numbers(rows, other, others)
            shuffled.append(_gain(_right(guessed, own), blind, seed))
    return (
        Control(
            EXPECTED[0],
            min(gain for gain, _ in planted),
            all(quantile(drawn, ERROR) > 0 for _, drawn in planted),
        ),
        Control(
            EXPECTED[1],
            max(gain for gain, _ in shuffled),
            all(quantile(drawn, NULL_ERROR) <= 0 for _, drawn in shuffled),
        ),
    )
