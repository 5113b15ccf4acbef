"""Guess something about a text that is not its label: whether it holds a type of personal data.

The guesser learns on known texts what pooled vectors, attention maps and attributions of texts with
such data look like, by logistic regression. Beside it stands one that sees the model's answer alone
and says what most known texts with that answer are: where the label gives the attribute away, this
is no finding.

Claim: none about privacy; see ``attnpriv.audit.leakage.inversion``. Not covered: attributes that
nobody marked, such as who wrote a text; types that the answer gives away in 95 % of known texts;
all but the three types of which the answer tells least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attnpriv.audit.leakage.fitting import Bools, fitted_scores
from attnpriv.audit.results import NotRun
from attnpriv.audit.statistics import Floats, bootstrap_ratios, clopper_pearson
from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.verdicts import ERROR, Judgement, gravity, judge

MOST_TYPES = 3
LEAST_ERROR = 0.05  # of the guess by the answer: with less, there is too little to gain
NULL_ERROR = 0.0005
EXPECTED = (
    "the attribute planted as a number: more right guesses of each than by the answer",
    "the attribute shuffled among the known texts: no more right guesses, at "
    f"{100 * (1 - NULL_ERROR):g} % confidence",
)
NO_TYPE = (
    "for each type of personal data, a guess by the model's answer is right in 95 % of the known "
    "texts or more, so that there is too little to gain"
)


@dataclass(frozen=True)
class AttributeGuess:
    """How often a guess is right that texts hold a type of personal data.

    Attributes:
        entity_type: the type.
        source: what the guesser sees: pooled vectors, attention maps or attributions.
        share: of the attacked texts that hold it.
        by_answer: right guesses of the one that sees the model's answer alone.
        accuracy: right guesses of the one that sees the numbers.
        gain: the latter less the former, on the same texts.
        judgement: the verdict, by intervals that are corrected for the number of guesses.
    """

    entity_type: str
    source: str
    share: float
    by_answer: Estimate
    accuracy: Estimate
    gain: Estimate
    judgement: Judgement


@dataclass(frozen=True)
class AttributesResult:
    """What types of personal data can be guessed to stand in a text.

    Attributes:
        guesses: of each type and source.
        judgement: the gravest of them.
        positive: the attribute is planted.
        null: there is nothing to guess.
        valid: whether both controls passed.
    """

    guesses: tuple[AttributeGuess, ...]
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class Group:
    """N texts that are known, or asked about.

    Attributes:
        types: the types of personal data in each.
        answers: the predicted class of each, [N].
        sources: by their names, what was computed from each, [N, F].
    """

    types: Sequence[frozenset[str]]
    answers: NDArray[np.int64]
    sources: dict[str, Floats]

    def truth(self, entity_type: str) -> Bools:
        """Which of the texts hold a type, [N]."""
        return np.array([entity_type in each for each in self.types], dtype=np.bool_)


def measure_attributes(
    known: Group, asked: Group, *, resamples: int, seed: int
) -> AttributesResult | NotRun:
    """Guess which texts hold personal data of each type, with both controls."""
    chosen = _chosen_types(known)
    if not chosen:
        return NotRun(NO_TYPE)
    positive, null = _controls(known, asked, chosen, resamples, seed)
    valid = positive.passed and null.passed
    error = ERROR / (len(chosen) * len(known.sources))
    guesses = tuple(
        _guess(known, asked, name, source, error, valid, resamples, seed)
        for name in chosen
        for source in known.sources
    )
    gravest = max((each.judgement for each in guesses), key=gravity)
    return AttributesResult(guesses, gravest, positive, null, valid)


def _chosen_types(known: Group) -> list[str]:
    names = sorted(frozenset[str]().union(*known.types))
    truth = {name: known.truth(name) for name in names}
    errors = {
        name: float((_by_answer(known, own, known) != own).mean()) for name, own in truth.items()
    }
    fitting = [name for name in names if errors[name] >= LEAST_ERROR]
    return sorted(fitting, key=lambda name: -errors[name])[:MOST_TYPES]


def _by_answer(known: Group, truth: Bools, asked: Group) -> Bools:
    """What most known texts with the same answer are; without any, what most of all are."""
    overall = bool(truth.mean() >= 0.5)
    usual = {
        answer: bool(truth[known.answers == answer].mean() >= 0.5)
        for answer in {*known.answers.tolist()}
    }
    return np.array([usual.get(answer, overall) for answer in asked.answers.tolist()])


def _guess(
    known: Group, asked: Group, name: str, source: str, error: float, valid: bool,
    resamples: int, seed: int,
) -> AttributeGuess:  # fmt: skip
    truth = asked.truth(name)
    guessed = fitted_scores(known.sources[source], known.truth(name), asked.sources[source]) > 0
    right, blind = guessed == truth, _by_answer(known, known.truth(name), asked) == truth
    gain, drawn = _gain(right, blind, resamples, seed)
    low, high = np.quantile(drawn, [error, 1 - error])
    placed = ("gain in right guesses", Estimate(gain, float(low), float(high)), 0.0, None)
    return AttributeGuess(
        entity_type=name,
        source=source,
        share=float(truth.mean()),
        by_answer=clopper_pearson(int(blind.sum()), len(blind)),
        accuracy=clopper_pearson(int(right.sum()), len(right)),
        gain=percentile_interval(gain, drawn),
        judgement=judge([placed], None, valid=valid),
    )


def _gain(right: Bools, blind: Bools, resamples: int, seed: int) -> tuple[float, Floats]:
    more = right.astype(np.float64) - blind
    drawn = bootstrap_ratios(more[:, None], np.ones(len(more)), resamples, seed)[:, 0]
    return float(more.mean()), drawn


def _controls(
    known: Group, asked: Group, chosen: Sequence[str], resamples: int, seed: int
) -> tuple[Control, Control]:
    planted, shuffled = [], []
    rng = np.random.default_rng([seed, 5])
    for name in chosen:
        truth, own = known.truth(name), asked.truth(name)
        blind = _by_answer(known, truth, asked) == own
        numbers = [each[:, None].astype(np.float64) for each in (truth, own)]
        guessed = fitted_scores(numbers[0], truth, numbers[1]) > 0
        planted.append(_gain(guessed == own, blind, resamples, seed))
        for rows in known.sources:
            other = rng.permutation(truth)
            guessed = fitted_scores(known.sources[rows], other, asked.sources[rows]) > 0
            shuffled.append(_gain(guessed == own, blind, resamples, seed))
    lows = [float(np.quantile(drawn, NULL_ERROR)) for _, drawn in shuffled]
    return (
        Control(
            EXPECTED[0],
            min(gain for gain, _ in planted),
            all(float(np.quantile(drawn, ERROR)) > 0 for _, drawn in planted),
        ),
        Control(EXPECTED[1], max(gain for gain, _ in shuffled), all(low <= 0 for low in lows)),
    )
