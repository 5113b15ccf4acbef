"""What an observer of the answers alone guesses of the words that the server hid.

The observer knows other texts with their answers, fits a regression to what the answers say of each
placeholder, and names the hidden words of rows of which it sees the answer alone. Beside it stands
a guesser that sees only what the placeholder says openly: the type of personal data, and the place.

Claim: none about privacy. Where the server computes answers from the redacted text, no score
follows a hidden word, and a gain can only come from visible words nearby, which the observer reads
anyway; where it does not, a gain is a leak. That this guesser fails proves nothing about a better
one. Not covered: words that stand in none of the known rows, which count as not named.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress, groupby
from random import Random

from attnpriv.estimates import Control, Estimate, quantile
from attnpriv.verdicts import ERROR, judge
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.attack_results import HiddenWordsResult
from attnpriv_client.audit.explained import attention_maps, attributions
from attnpriv_client.audit.fitting import half_of
from attnpriv_client.audit.guessing import Guesser
from attnpriv_client.audit.results import NotRunError
from attnpriv_client.audit.statistics import bootstrap_ratios, resampled_ratios, shares
from attnpriv_client.domain import Explanation, TokenExplanation

LEAST = 8  # rows that hide something
FIRST = (1, 10)  # guesses
PLANTED = 16  # numbers by which the positive control tells words apart
NULL_ERROR = 0.0005  # the chance of each gain to fail the null control
EXPECTED = (
    "random numbers of each hidden word in the place of the scores: more words named than by type "
    "and place",
    "scores shuffled among the placeholders: no more words named, at "
    f"{100 * (1 - NULL_ERROR):g} % confidence",
)
NOTHING_HIDDEN = "no explanation hides a word that can be found in its text"
NO_SCORES = "the released explanations carry no scores of what they hide"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Place:
    """A hidden word.

    Attributes:
        word: what is hidden.
        shown: what the placeholder says openly: features of its type and place.
        scores: what was released about it.
    """

    word: str
    shown: tuple[float, ...]
    scores: tuple[float, ...]


Document = tuple[Place, ...]
"""The hidden words of one row."""


def hidden_words(answered: Sequence[Answered], seed: int) -> HiddenWordsResult:
    """Fit a guesser to one half of the rows, and name the hidden words of the other.

    Args:
        answered: the rows.
        seed: of the halves, the controls and the bootstrap.
    """
    different = {a.row.text: a for a in answered if a.explanation and a.extents}
    types = sorted(
        {kind for a in different.values() for t in _tokens(a) for kind in t.entity_types}
    )
    documents = [found for a in different.values() if (found := _document(a, types))]
    if len(documents) < LEAST:
        reason = NOTHING_HIDDEN if not documents else f"only {len(documents)} rows hide a word"
        raise NotRunError(reason)
    sizes = [len(place.scores) for own in documents for place in own]
    usual = max(set(sizes), key=sizes.count)
    if not usual:
        raise NotRunError(NO_SCORES)
    alike = [own for own in documents if all(len(place.scores) == usual for place in own)]
    return measure(alike, seed)


def _tokens(answered: Answered) -> Sequence[TokenExplanation]:
    return answered.explanation.tokens if answered.explanation else ()


def _document(answered: Answered, types: Sequence[str]) -> Document:
    """The words under each run of placeholders that share one extent."""
    explanation = answered.explanation
    if explanation is None or answered.extents is None:
        return ()
    scores, places = _scores(explanation), []
    numbered = list(enumerate(zip(answered.extents, explanation.tokens, strict=True)))
    for (start, end), run in groupby(numbered, lambda each: each[1][0]):
        number, (_, token) = next(run)
        if not token.entity_types:
            continue
        words = _WORD.findall(answered.row.text[start:end].casefold())
        kinds = tuple(float(kind in token.entity_types) for kind in types)
        from_end = float(len(numbered) - number)
        for at, word in enumerate(words):
            shown = (*kinds, float(number), from_end, float(at))
            places.append(Place(word, shown, scores[number]))
    return tuple(places)


def _scores(explanation: Explanation) -> list[tuple[float, ...]]:
    """What was released about each entry: its attention in each map, and its attribution."""
    maps = [shares(one) for layer in attention_maps(explanation) for one in layer]
    gradients = attributions(explanation)
    parts = shares([abs(value) for value in gradients]) if gradients else []
    answer = explanation.prediction
    probabilities = (*answer.probabilities.values(),) if answer and answer.probabilities else ()
    return [
        (
            *(one[n] * len(one) for one in maps),
            *((gradients[n], parts[n]) if gradients else ()),
            *(probabilities if maps or gradients else ()),
        )
        for n in range(len(explanation.tokens))
    ]


def measure(documents: Sequence[Document], seed: int) -> HiddenWordsResult:
    """As ``hidden_words``, from numbers."""
    half = half_of(len(documents), seed)
    known = list(compress(documents, half))
    asked = list(compress(documents, (not is_in for is_in in half)))
    by_type = _named(known, asked, lambda place: place.shown)
    ours = _named(known, asked, _all_features)
    positive, null = _controls(known, asked, by_type, seed)
    valid = positive.passed and null.passed
    words = [place.word for own in asked for place in own]
    seen = {place.word for own in known for place in own}
    sizes = [float(len(own)) for own in asked]
    shares_of = [bootstrap_ratios(columns, sizes, seed) for columns in (ours, by_type)]
    gains, placed = [], []
    for k, own, other in zip(FIRST, ours, by_type, strict=True):
        more = [a - b for a, b in zip(own, other, strict=True)]
        gain = bootstrap_ratios([more], sizes, seed)[0]
        gains.append(gain)
        placed.append(
            (f"gain among the first {k} guesses", _corrected(more, sizes, seed), 0.0, None)
        )
    return HiddenWordsResult(
        fitted=len(known),
        documents=len(asked),
        words=len(words),
        known=sum(word in seen for word in words) / len(words),
        top1=shares_of[0][0],
        top10=shares_of[0][1],
        by_type_top1=shares_of[1][0],
        by_type_top10=shares_of[1][1],
        top1_gain=gains[0],
        top10_gain=gains[1],
        judgement=judge(placed, None, valid=valid),
        positive=positive,
        null=null,
        valid=valid,
    )


def _all_features(place: Place) -> tuple[float, ...]:
    return (*place.shown, *place.scores)


def _named(
    known: Sequence[Document],
    asked: Sequence[Document],
    read: Callable[[Place], Sequence[float]],
) -> list[list[float]]:
    """Of each row how many words are among the first guesses, for each number of guesses."""
    places = [place for own in known for place in own]
    guesser = Guesser([read(place) for place in places], [place.word for place in places])
    ranks = [[guesser.rank(read(place), place.word) for place in own] for own in asked]
    return [[float(sum(rank < k for rank in own)) for own in ranks] for k in FIRST]


def _corrected(more: Sequence[float], sizes: Sequence[float], seed: int) -> Estimate:
    drawn = resampled_ratios(more, sizes, seed)
    error = ERROR / len(FIRST)
    ends = quantile(drawn, error), quantile(drawn, 1 - error)
    return Estimate(sum(more) / sum(sizes), *ends)


def _controls(
    known: Sequence[Document], asked: Sequence[Document], by_type: list[list[float]], seed: int
) -> tuple[Control, Control]:
    sizes = [float(len(own)) for own in asked]

    def gain(groups: tuple[list[Document], list[Document]]) -> tuple[float, float]:
        named = _named(*groups, _all_features)[0]
        more = [a - b for a, b in zip(named, by_type[0], strict=True)]
        drawn = resampled_ratios(more, sizes, seed)
        return sum(more) / sum(sizes), quantile(drawn, NULL_ERROR)

    planted, shuffled = gain(_planted(known, asked, seed)), gain(_shuffled(known, asked, seed))
    return (
        Control(EXPECTED[0], planted[0], planted[1] > 0),
        Control(EXPECTED[1], shuffled[0], shuffled[1] <= 0),
    )


def _planted(
    known: Sequence[Document], asked: Sequence[Document], seed: int
) -> tuple[list[Document], list[Document]]:
    """The same rows with numbers that tell their words apart; every word is a known one.

    What the control finds out is whether the rows are enough, so words of the attacked rows that
    nobody knows are replaced by known ones.
    """
    rng = Random(f"{seed} codes")
    counts = Counter(place.word for own in known for place in own)
    words, codes = sorted(counts), {}
    for word in words:
        codes[word] = tuple(rng.gauss(0.0, 1.0) for _ in range(PLANTED))

    def plant(own: Document) -> Document:
        named = [
            place if place.word in codes else replace(place, word=rng.choice(words))
            for place in own
        ]
        return tuple(replace(place, scores=codes[place.word]) for place in named)

    return [*map(plant, known)], [*map(plant, asked)]


def _shuffled(
    known: Sequence[Document], asked: Sequence[Document], seed: int
) -> tuple[list[Document], list[Document]]:
    """The same rows, each word with the scores of a random placeholder of its half."""
    rng = Random(f"{seed} shuffled")

    def shuffle(group: Sequence[Document]) -> list[Document]:
        scores = [place.scores for own in group for place in own]
        rng.shuffle(scores)
        drawn = iter(scores)
        return [tuple(replace(place, scores=next(drawn)) for place in own) for own in group]

    return shuffle(known), shuffle(asked)
