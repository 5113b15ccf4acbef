"""What of a text can be read out of what a model computed from it: its tokens, and what it holds.

The attacker knows other texts with their pooled vectors, attention maps or attributions, fits a
guesser to these, and reads the tokens of texts of which it sees nothing else. Beside each stands a
guesser that sees none of this: how often tokens occur and, for maps and attributions, where in the
text they stand.

Claim: none about privacy. The ε of a training covers the records trained on, and not those that a
model is asked about. That a guesser fails proves nothing about a better one. Not covered: other
guessers than a regression; tokens that occur in none of the known texts, which count as not
recovered and are counted; the order of tokens, of which pooled vectors tell nothing here.

The gradient of a single record is the worst case, which ``record_gradients`` explains; types of
personal data that a text holds are the attribute that is not its label, of ``attributes``.

Source: Song and Raghunathan 2020 (arXiv:2004.00053), section 4, for vectors of texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Literal

import numpy as np
import torch

from attnpriv.audit.documents import sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.attributes import AttributesResult, Group, measure_attributes
from attnpriv.audit.leakage.explained import (
    attribution_features,
    attribution_places,
    explain,
    map_features,
    map_places,
)
from attnpriv.audit.leakage.fitting import Bools, half_of
from attnpriv.audit.leakage.guessing import (
    KS,
    Hits,
    Ints,
    Recovered,
    Tokens,
    guess_places,
    guess_texts,
    ranks_among_absent,
)
from attnpriv.audit.leakage.record_gradients import Seen, gradient_of, noised, read
from attnpriv.audit.results import NotRun
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import FORTH_AND_BACK, LEAST, Answers, Progress, Subject
from attnpriv.errors import InputError
from attnpriv.estimates import Control, Estimate, percentile_interval
from attnpriv.explain.gradients import POINTS
from attnpriv.verdicts import ERROR, Judgement, gravity, judge

Name = Literal["pooled", "attention", "attributions"]
NAMES: tuple[Name, ...] = ("pooled", "attention", "attributions")
Of = Literal["word vectors", "head"]
ATTACKS = len(NAMES) + 2  # with gradients, plain and noised, which share the chance of an error
GRADIENTS = 100  # of the attacked texts, how many have their gradient read
PLANTED = 64  # numbers by which the positive control tells tokens apart
NULL_ERROR = 0.0005  # each gain's chance to fail the null control
EXPECTED = (
    "random numbers of each token in the place of what the model computed: more tokens recovered "
    "than by the guesser that sees nothing",
    "what the model computed shuffled among texts and places: no more tokens recovered, at "
    f"{100 * (1 - NULL_ERROR):g} % confidence",
)


@dataclass(frozen=True)
class Record:
    """What is known, or asked, of one text.

    Attributes:
        ids: its tokens, without those that the model added, [T].
        sensitive: which of them are personal data, [T].
        pooled: the vector that the head sees, [F].
        maps: what the attention maps say of each place, [T, G].
        attributions: what the attributions say of each place, [T, 4].
        shape: what the maps look like as a whole, [M].
        outline: what the attributions look like as a whole, [8].
        types: the types of personal data in the text.
        answer: the predicted class.
    """

    ids: Ints
    sensitive: Bools
    pooled: Floats
    maps: Floats
    attributions: Floats
    shape: Floats
    outline: Floats
    types: frozenset[str]
    answer: int

    @property
    def places(self) -> Floats:
        """Where each token stands, from either end, and how long the text is, [T, 3]."""
        at, length = np.arange(len(self.ids), dtype=np.float64), len(self.ids)
        return np.stack([at, length - at, np.full(length, float(length))], 1)


@dataclass(frozen=True)
class Inversion:
    """What was read out of one kind of numbers.

    Attributes:
        recovered: by the guesser that sees them.
        guesser: by the one that does not.
        top1_gain: the share among the first guesses less that of the other guesser.
        top10_gain: the same of the first ten guesses.
        judgement: the verdict, by intervals that are corrected for the number of gains.
    """

    recovered: Recovered
    guesser: Recovered
    top1_gain: Estimate
    top10_gain: Estimate
    judgement: Judgement


@dataclass(frozen=True)
class InversionResult:
    """What of held-out texts can be read out of what the run computes from them.

    Attributes:
        fitted: texts that the attacker knows.
        documents: texts that were attacked.
        tokens: of the latter.
        sensitive_tokens: how many of them are personal data.
        known: share of the tokens that occur in the known texts: no guesser recovers more.
        pooled: from the vector that the head sees.
        attention: from the attention maps.
        attributions: from integrated gradients of the predicted class.
        gradients: from the gradient of a single record's loss, the worst case.
        noised_gradients: from the same clipped and noised as in a step of the run, if it is noised.
        gradients_of: whether the word vectors are trained, or the head alone shows what is read.
        attributes: which types of personal data a text holds.
        gravest: which of the first three the verdict is that of.
        judgement: its judgement.
        positive: what must be read.
        null: there is nothing to read.
        valid: whether both controls passed.
        resamples: of the bootstrap over texts.
        seed: of the halves, the controls and the bootstrap.
    """

    fitted: int
    documents: int
    tokens: int
    sensitive_tokens: int
    known: float
    pooled: Inversion
    attention: Inversion
    attributions: Inversion
    gradients: Inversion
    noised_gradients: Inversion | None
    gradients_of: Of
    attributes: AttributesResult | NotRun
    gravest: Name
    judgement: Judgement
    positive: Control
    null: Control
    valid: bool
    resamples: int
    seed: int


Gradients = Callable[[int], tuple[Seen, Seen | None]]
"""What the gradient of a record shows, by its number, and what the noised one does."""


def measure_inversion(
    records: Sequence[Record], gradients: Gradients, *, resamples: int, seed: int
) -> InversionResult:
    """Fit guessers to one half of the texts, and read the tokens of the other half.

    Controls: where random numbers that tell tokens apart stand for what the model computed, more
    must be recovered than without; where it is shuffled, no more may be. If either fails, the
    result is not valid. Gradients have none of their own: what is read of the head's is read as
    pooled vectors are, and the rows of word vectors are read without anything that was fitted.

    Args:
        records: texts, no two of them copies, each with one token at least.
        gradients: of the records; those of some attacked ones are asked for.
        resamples: of the bootstrap over texts.
        seed: of the halves, the controls and the bootstrap.

    Raises:
        InputError: fewer than 8 texts.
    """
    if len(records) < LEAST:
        raise InputError(f"expected at least {LEAST} texts, got {len(records)}")
    half = half_of(len(records), seed)
    known, asked = (list(compress(records, chosen)) for chosen in (half, ~half))
    blind = _blind(known, asked)
    positive, null = _controls(known, asked, blind, resamples, seed)
    valid = positive.passed and null.passed
    found = {
        name: _inversion(_guess(name, known, asked), blind[name], valid, resamples, seed)
        for name in NAMES
    }
    seen = [gradients(number) for number in np.flatnonzero(~half)[:GRADIENTS].tolist()]

    def worst(shown: Sequence[Seen]) -> Inversion:
        few = asked[: len(shown)]
        ours = _from_gradients(known, few, shown)
        return _inversion(ours, blind["pooled"].first(len(few)), valid, resamples, seed)

    noised = [of_step for _, of_step in seen if of_step]
    gravest = max(NAMES, key=lambda name: gravity(found[name].judgement))
    ids = np.concatenate([each.ids for each in asked])
    return InversionResult(
        fitted=len(known),
        documents=len(asked),
        tokens=len(ids),
        sensitive_tokens=int(sum(each.sensitive.sum() for each in asked)),
        known=float((Tokens([each.ids for each in known]).columns(ids) >= 0).mean()),
        **found,
        gradients=worst([plain for plain, _ in seen]),
        noised_gradients=worst(noised) if noised else None,
        gradients_of="head" if seen[0][0].rows is None else "word vectors",
        attributes=measure_attributes(*map(_group, (known, asked)), resamples=resamples, seed=seed),
        gravest=gravest,
        judgement=found[gravest].judgement,
        positive=positive,
        null=null,
        valid=valid,
        resamples=resamples,
        seed=seed,
    )


def _guess(name: Name, known: Sequence[Record], asked: Sequence[Record]) -> Hits:
    """What a guesser recovers that sees one kind of numbers."""
    match name:
        case "pooled":
            return _from_vectors(known, asked, lambda record: record.pooled)
        case "attention":
            return _from_places(known, asked, lambda record: record.maps)
    return _from_places(known, asked, lambda record: record.attributions)


def _blind(known: Sequence[Record], asked: Sequence[Record]) -> dict[Name, Hits]:
    """What the guessers recover that see nothing which the model computed."""
    by_place = _from_places(known, asked, lambda record: record.places)
    by_text = _from_vectors(known, asked, lambda record: np.zeros(0))
    return {"pooled": by_text, "attention": by_place, "attributions": by_place}


Reads = Callable[[Record], Floats]


def _from_vectors(known: Sequence[Record], asked: Sequence[Record], read: Reads) -> Hits:
    vectors, others = (np.array([read(each) for each in group]) for group in (known, asked))
    truth = [each.ids for each in asked]
    ranks = guess_texts(vectors, [each.ids for each in known], others, truth)
    return Hits.of(ranks, [each.sensitive for each in asked])


def _from_places(known: Sequence[Record], asked: Sequence[Record], read: Reads) -> Hits:
    rows, others = ([read(each) for each in group] for group in (known, asked))
    truth = [each.ids for each in asked]
    ranks = guess_places(rows, [each.ids for each in known], others, truth)
    return Hits.of(ranks, [each.sensitive for each in asked])


def _from_gradients(known: Sequence[Record], asked: Sequence[Record], seen: Sequence[Seen]) -> Hits:
    """Read off the rows of word vectors, or like pooled vectors where only the head is trained."""
    rows, truth = [each.rows for each in seen if each.rows is not None], [r.ids for r in asked]
    if rows:
        ranks = [ranks_among_absent(*each) for each in zip(rows, truth, strict=True)]
    else:
        vectors, others = ([r.pooled for r in known], [each.vector for each in seen])
        ranks = guess_texts(np.array(vectors), [r.ids for r in known], np.array(others), truth)
    return Hits.of(ranks, [each.sensitive for each in asked])


def _group(records: Sequence[Record]) -> Group:
    return Group(
        [each.types for each in records],
        np.array([each.answer for each in records]),
        {
            "pooled": np.array([each.pooled for each in records]),
            "attention": np.array([each.shape for each in records]),
            "attributions": np.array([each.outline for each in records]),
        },
    )


def _inversion(ours: Hits, blind: Hits, valid: bool, resamples: int, seed: int) -> Inversion:
    gains, drawn = ours.above(blind, resamples, seed)
    error = ERROR / (ATTACKS * len(KS))
    corrected = [
        (f"gain among the first {k} guesses", Estimate(float(gain), *_ends(own, error)), 0.0, None)
        for k, gain, own in zip(KS, gains, drawn.T, strict=True)
    ]
    top1, top10 = (
        percentile_interval(float(gain), own) for gain, own in zip(gains, drawn.T, strict=True)
    )
    return Inversion(
        recovered=ours.recovered(resamples, seed),
        guesser=blind.recovered(resamples, seed),
        top1_gain=top1,
        top10_gain=top10,
        judgement=judge(corrected, None, valid=valid),
    )


def _ends(drawn: Floats, error: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, [error, 1 - error])
    return float(low), float(high)


def _controls(
    known: Sequence[Record],
    asked: Sequence[Record],
    blind: dict[Name, Hits],
    resamples: int,
    seed: int,
) -> tuple[Control, Control]:
    def gains(groups: tuple[list[Record], list[Record]]) -> list[tuple[float, float]]:
        found = [_guess(name, *groups).above(blind[name], resamples, seed) for name in NAMES]
        return [
            (float(more[1]), float(np.quantile(drawn[:, 1], NULL_ERROR))) for more, drawn in found
        ]

    planted, shuffled = gains(_planted(known, asked, seed)), gains(_shuffled(known, asked, seed))
    return (
        Control(EXPECTED[0], min(planted)[0], all(low > 0 for _, low in planted)),
        Control(EXPECTED[1], max(shuffled)[0], all(low <= 0 for _, low in shuffled)),
    )


def _planted(
    known: Sequence[Record], asked: Sequence[Record], seed: int
) -> tuple[list[Record], list[Record]]:
    """The same texts with numbers that tell their tokens apart."""
    tokens = Tokens([each.ids for each in (*known, *asked)])
    codes = np.random.default_rng([seed, 1]).normal(size=(len(tokens.ids), PLANTED))

    def plant(record: Record) -> Record:
        own = codes[tokens.columns(record.ids)]
        return replace(record, pooled=own.mean(0), maps=own, attributions=own)

    return [*map(plant, known)], [*map(plant, asked)]


def _shuffled(
    known: Sequence[Record], asked: Sequence[Record], seed: int
) -> tuple[list[Record], list[Record]]:
    """The same texts, each with what was computed at random places of texts of its half."""
    rng = np.random.default_rng([seed, 2])

    def shuffle(group: Sequence[Record]) -> list[Record]:
        order = rng.permutation(len(group))
        maps, attributions = (
            np.concatenate([getattr(each, name) for each in group])
            for name in ("maps", "attributions")
        )
        places = np.split(
            rng.permutation(len(maps)), np.cumsum([len(each.ids) for each in group])[:-1]
        )
        return [
            replace(
                each, pooled=group[other].pooled, maps=maps[own], attributions=attributions[own]
            )
            for each, other, own in zip(group, order, places, strict=True)
        ]

    return shuffle(known), shuffle(asked)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    chosen = len(_chosen(subject))
    return (3 + POINTS * FORTH_AND_BACK) * chosen + min(GRADIENTS, chosen) * FORTH_AND_BACK


def _chosen(subject: Subject) -> list[int]:
    """The documents that are known or attacked."""
    most = max(LEAST, subject.affordable(subject.options.inversion_documents))
    different = subject.different_unseen
    return [different[i] for i in sample(len(different), most, subject.options.seed)]


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> InversionResult:
    """As a measure of an audit."""
    chosen, options, records = _chosen(subject), subject.options, []
    spans = subject.spans_of(subject.rows.held_out)
    for document in chosen:
        types = frozenset(span.entity_type for span in spans[document])
        records.append(_record(subject, document, answers.targets[document], types))
        progress(len(records), len(chosen))
    return measure_inversion(
        records,
        lambda number: _gradients(subject, chosen[number]),
        resamples=options.resamples,
        seed=options.seed,
    )


def _record(subject: Subject, document: int, target: int, types: frozenset[str]) -> Record:
    model, documents = subject.run.model, subject.documents
    content, inputs = documents.content(document), documents.inputs([document])
    with torch.inference_mode():
        pooled = model.run(model.embed(inputs.values), inputs.mask).features[0]
    seen = explain(model, documents, document, target)
    return Record(
        ids=np.array(documents.samples[document].ids)[content],
        sensitive=documents.sensitive[document][content],
        pooled=pooled.double().numpy(),
        maps=map_places(seen),
        attributions=attribution_places(seen),
        shape=map_features(seen),
        outline=attribution_features(seen),
        types=types,
        answer=target,
    )


def _gradients(subject: Subject, document: int) -> tuple[Seen, Seen | None]:
    """What the gradient of a record shows, as it is and noised like a step of the run."""
    documents, card = subject.documents, subject.run.card
    content = documents.content(document)
    added = np.array(documents.samples[document].ids)[~content]
    gradient = gradient_of(
        subject.run.model,
        documents.inputs([document]),
        documents.data.labels[document],
        whole=card.trainable == "all",
    )
    plain = read(gradient, added)
    if card.privacy is None:
        return plain, None
    privacy, seed = card.privacy, [subject.options.seed, 6, document]
    step = noised(gradient, privacy.max_grad_norm, privacy.noise_multiplier, seed)
    return plain, read(step, added)
