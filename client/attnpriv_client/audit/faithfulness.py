"""Does the answer depend on the words that a released explanation ranks first?

Comprehensiveness: how far the predicted class's probability falls without the words ranked first;
with a faithful ranking it falls far. Sufficiency: how far it falls if only those words are left;
with a faithful ranking it hardly falls. Both are from ERASER (DeYoung et al. 2020,
arXiv:1911.03429, equations 1 to 3).

Compared with ``attnpriv.audit.faithfulness``, which masks tokens: from outside only words between
white space can be removed, and the others move together, so positions shift. The score of a word is
the sum over its entries; a redacted entry that spans several words is divided among them by their
characters. Averaged, summed or noised scores rank words less well than the model's own would: a low
figure here says that the released explanation is of little use, not that the model has no better.

Not covered: people do not write texts with holes, and a model may answer them oddly. So compare
rankings with each other and with the random one rather than read a value alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from statistics import fmean, stdev

from attnpriv.estimates import Control
from attnpriv_client.audit.alignment import Extent
from attnpriv_client.audit.asking import Answered, Ask
from attnpriv_client.audit.lift import entry_scores, with_all_scores
from attnpriv_client.audit.results import FaithfulnessResult, NotRunError, RankingFaithfulness
from attnpriv_client.audit.statistics import bootstrap_ratios
from attnpriv_client.domain import Prediction

PERCENTS = (1, 5, 10, 20, 50)  # of the words, rounded up, so that at least one is removed
MOST = 50  # documents: each costs one prediction per word and several per ranking
LEAVE_ONE_OUT, RANDOM, SECOND_RANDOM = "leave_one_out", "random", "random_again"

Scores = Sequence[float]


@dataclass(frozen=True)
class _Document:
    """The words of a text, and their scores by each released explanation."""

    words: tuple[str, ...]
    scores: dict[str, list[float]]
    prediction: Prediction

    def without(self, gone: Iterable[int]) -> str:
        """The text without some of its words."""
        out = set(gone)
        return " ".join(word for i, word in enumerate(self.words) if i not in out)

    def only(self, kept: Iterable[int]) -> str:
        """The text with only some of its words, in their order."""
        return " ".join(self.words[i] for i in sorted(kept))

    def drop(self, other: Prediction | None) -> float | None:
        """How far the probability of the predicted class falls in another answer."""
        before = self.prediction.probabilities
        if before is None or other is None or other.probabilities is None:
            return None
        return before[self.prediction.label] - other.probabilities[self.prediction.label]


def faithfulness(answered: Sequence[Answered], ask: Ask, seed: int) -> FaithfulnessResult:
    """Comprehensiveness and sufficiency of released rankings, on at most ``MOST`` documents.

    Controls: the ranking by the true effects of leaving words out must beat the random one, or
    these documents show nothing; two random rankings must not differ. If either control fails, the
    result is not valid.

    Args:
        answered: the rows. Those that the model did not read to the end, whose entries cannot be
            found in the text, or with fewer than two words are left out.
        ask: asks for predictions.
        seed: seed of the sample, the random rankings and the bootstrap.
    """
    documents = _sampled(answered, seed)
    alone = ask((d.without([i]) for d in documents for i in range(len(d.words))), "words left out")
    rankings = [_rankings(d, alone, n, seed) for n, d in enumerate(documents)]
    asked = (
        text
        for document, ranked in zip(documents, rankings, strict=True)
        for scores in ranked.values()
        for text in _variants(document, scores)
    )
    answers = ask(asked, "words ranked first")
    drops = [
        {name: _drops(document, scores, answers) for name, scores in ranked.items()}
        for document, ranked in zip(documents, rankings, strict=True)
    ]
    positive, null = _controls(drops, seed)
    return FaithfulnessResult(
        documents=len(documents),
        percents=PERCENTS,
        rankings=tuple(
            _ranking(drops, name, seed) for name in rankings[0] if name != SECOND_RANDOM
        ),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
    )


def _sampled(answered: Sequence[Answered], seed: int) -> list[_Document]:
    if not any(a.prediction and a.prediction.probabilities for a in answered):
        raise NotRunError("the server releases no probabilities")
    found = [document for a in answered if (document := _document(a)) is not None]
    names, found = with_all_scores(found, lambda document: document.scores)
    if len(found) < 2:
        raise NotRunError("fewer than two explanations have scores that can be assigned to words")
    some = found if len(found) <= MOST else Random(f"{seed} sample").sample(found, MOST)
    return [replace(d, scores={name: d.scores[name] for name in names}) for d in some]


def _document(answered: Answered) -> _Document | None:
    prediction, explanation = answered.prediction, answered.explanation
    words = list(re.finditer(r"\S+", answered.row.text))
    if answered.truncated or len(words) < 2 or prediction is None or not prediction.probabilities:
        return None
    if explanation is None or not answered.extents:
        return None
    extents = [match.span() for match in words]
    scores = {
        name: _on_words(extents, answered.extents, layers[-1])
        for name, layers in entry_scores(explanation).items()
    }
    return _Document(tuple(match[0] for match in words), scores, prediction)


def _on_words(words: Sequence[Extent], extents: Sequence[Extent], scores: Scores) -> list[float]:
    """The scores of words: each entry's score is divided by the characters it shares with them."""
    totals = [0.0] * len(words)
    for (start, end), score in zip(extents, scores, strict=True):
        common = [max(0, min(end, e) - max(start, s)) for s, e in words]
        for i, characters in enumerate(common):
            totals[i] += score * characters / (sum(common) or 1)
    return totals


def _rankings(
    document: _Document, alone: Mapping[str, Prediction | None], number: int, seed: int
) -> dict[str, list[float]]:
    """The scores of the words in each ranking; the last two rankings are random."""
    words = range(len(document.words))
    effects = [document.drop(alone[document.without([i])]) or 0.0 for i in words]
    rng = Random(f"{seed} {number}")
    return {
        **document.scores,
        LEAVE_ONE_OUT: effects,
        RANDOM: [rng.random() for _ in words],
        SECOND_RANDOM: [rng.random() for _ in words],
    }


def _variants(document: _Document, scores: Scores) -> Iterator[str]:
    """The texts without the words ranked first, and the texts of those words alone, per share."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    tops = [order[: -(-percent * len(order) // 100)] for percent in PERCENTS]
    yield from map(document.without, tops)
    yield from map(document.only, tops)


def _drops(
    document: _Document, scores: Scores, answers: Mapping[str, Prediction | None]
) -> list[float]:
    """Comprehensiveness and sufficiency at each share; a refused text counts as no change."""
    return [document.drop(answers[text]) or 0.0 for text in _variants(document, scores)]


def _ranking(
    drops: Sequence[Mapping[str, Sequence[float]]], name: str, seed: int
) -> RankingFaithfulness:
    half = len(PERCENTS)
    columns = [list(column) for column in zip(*(each[name] for each in drops), strict=True)]
    comprehensive, sufficient = _aopc(drops, name, 0), _aopc(drops, name, 1)
    gains = (
        [a - b for a, b in zip(comprehensive, _aopc(drops, RANDOM, 0), strict=True)],
        [b - a for a, b in zip(sufficient, _aopc(drops, RANDOM, 1), strict=True)],
    )
    estimates = bootstrap_ratios(
        [*columns, comprehensive, sufficient, *gains], [1.0] * len(drops), seed
    )
    return RankingFaithfulness(
        name, tuple(estimates[:half]), tuple(estimates[half : 2 * half]), *estimates[2 * half :]
    )


def _aopc(drops: Sequence[Mapping[str, Sequence[float]]], name: str, part: int) -> list[float]:
    """For each document, the mean over the shares: comprehensiveness (0) or sufficiency (1)."""
    half = len(PERCENTS)
    return [fmean(each[name][part * half : (part + 1) * half]) for each in drops]


def _controls(drops: Sequence[Mapping[str, Sequence[float]]], seed: int) -> tuple[Control, Control]:
    """Controls: true effects against a random ranking, and one random ranking against another."""
    gain = _ranking(drops, LEAVE_ONE_OUT, seed).comprehensiveness_gain
    random, again = _aopc(drops, RANDOM, 0), _aopc(drops, SECOND_RANDOM, 0)
    gaps = [b - a for a, b in zip(random, again, strict=True)]
    error = stdev(gaps) / len(gaps) ** 0.5
    return (
        Control(
            "words ranked by their true effect: comprehensiveness above that of random ones",
            gain.value or 0.0,
            (gain.low or 0.0) > 0,
        ),
        Control(
            "another random ranking: comprehensiveness within 4 standard errors of the first",
            fmean(gaps),
            abs(fmean(gaps)) <= 4 * error + 1e-9,
        ),
    )
