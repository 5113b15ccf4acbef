"""Causal swap and mask: does the answer change with personal data and nothing else?

Each sensitive entity is replaced, in all its mentions, by another of the same type and the same
number of tokens (and of characters, where there is one) from other documents; and its tokens are
masked out of attention and pooling. Beside it stands the null: as many tokens of words that are not
sensitive, replaced by such words of other documents. In images a region's content is replaced and
blackened; ``attnpriv.audit.regions`` says how.

A type is flagged when swapping its values changes the predicted class's probability more than
swapping other words does. Not covered: a model that reads personal data less than other words is
not flagged and may still read it; its changes and flips stand there with their intervals.

Shapes: N rows, T positions, P numbers of a patch, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from attnpriv.audit.documents import Documents, prepare, sample
from attnpriv.audit.effects import (
    CHANGE,
    FLIP,
    KINDS,
    MEASURES,
    SWAP,
    SWAP_NULL,
    EffectStatistics,
    EntityEffect,
    answer_changes,
    corrected,
    probe_controls,
)
from attnpriv.audit.figures import Figures, figure
from attnpriv.audit.regions import RegionSwapper
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import USUAL_ENTITIES, Answers, Progress, Subject
from attnpriv.audit.swapping import (
    Entity,
    Ids,
    Pool,
    Swapper,
    class_logits,
    entity_values,
    find_entities,
    find_words,
)
from attnpriv.boxes import Box
from attnpriv.data.records import Span
from attnpriv.data.tickets import make_tickets
from attnpriv.estimates import Control
from attnpriv.models.text import TextModel
from attnpriv.runs.folder import Run
from attnpriv.tasks import CLASSIFY

APART = ("swap.flips", "swap_null.flips", "swap.change", "excess")
# Of the invented messages that values are taken from under noise; any numbers would do.
PUBLIC_TICKETS, PUBLIC_SEED = 400, 1

Answer = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Values [N, T] or [N, T, P], mask [N, T] and which positions are sensitive [N, T] to probabilities
[N, K]."""


@dataclass(frozen=True)
class CounterfactualResult:
    """Causal swap and mask of sensitive entities, over all of them and for each type."""

    documents: int
    of_images: bool
    overall: EntityEffect
    types: tuple[EntityEffect, ...]
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


class Case(Protocol):
    """One entity, and what is done to it."""

    @property
    def document(self) -> int:
        """Its document."""

    @property
    def entity_type(self) -> str:
        """Its type."""

    def variants(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the model reads after each intervention, [KINDS, T] or [KINDS, T, P], and masks."""


class Finder(Protocol):
    """Where cases come from."""

    def cases(self, document: int) -> Iterable[Case]:
        """The entities of a document that can be swapped."""

    def present(self, document: int) -> Counter[str]:
        """How many entities of each type it holds, whether they can be swapped or not."""

    def probes(self, seed: int) -> tuple[Answer, Answer]:
        """Two classifiers with random weights: of the sensitive positions, and of the others."""


@dataclass(frozen=True)
class _Case:
    """An entity with its replacement, and with words that are not sensitive and theirs."""

    document: int
    entity_type: str
    swapped: Ids
    tokens: tuple[int, ...]
    null_swapped: Ids
    null_tokens: tuple[int, ...]

    def variants(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """As ``Case`` says."""
        ids, masks = (each.repeat(KINDS, 1) for each in (values, mask))
        ids[0] = torch.tensor(self.swapped)
        masks[1, list(self.tokens)] = False
        ids[2] = torch.tensor(self.null_swapped)
        masks[3, list(self.null_tokens)] = False
        return ids, masks


class _Words:
    """Cases of texts."""

    def __init__(self, run: Run, documents: Documents, spans: Sequence[Sequence[Span]], seed: int):
        assert isinstance(run.model, TextModel)
        numbers = range(len(documents))
        self._documents, self._spans, self._seed = documents, spans, seed
        self._words = [find_words(documents, d) for d in numbers]
        self._entities = [find_entities(documents, d, spans[d]) for d in numbers]
        pool = Pool(each for found in (*self._entities, *self._words) for each in found)
        self._swapper = Swapper(run.tokenizer, run.model.config.max_length, pool)
        self._vocab_size = run.model.config.vocab_size

    def cases(self, document: int) -> Iterator[_Case]:
        own = self._entities[document], self._words[document]
        return _cases(self._swapper, self._documents, document, *own, self._seed)

    def present(self, document: int) -> Counter[str]:
        text = self._documents.data.records[document]
        return Counter(kind for kind, _ in entity_values(text, self._spans[document]))

    def probes(self, seed: int) -> tuple[Answer, Answer]:
        weights = torch.from_numpy(np.random.default_rng([seed, 5]).normal(size=self._vocab_size))
        return _probes(lambda ids: weights[ids])


class _Regions:
    """Cases of images."""

    def __init__(self, documents: Documents, boxes: Sequence[Sequence[Box]], seed: int) -> None:
        self._documents, self._boxes = documents, boxes
        self.cases = RegionSwapper(documents, boxes, seed).cases

    def present(self, document: int) -> Counter[str]:
        return Counter(box.entity_type for box in self._boxes[document])

    def probes(self, seed: int) -> tuple[Answer, Answer]:
        shape = self._documents.samples[0].values.shape if len(self._documents) else (0, 0)
        weights = torch.from_numpy(np.random.default_rng([seed, 5]).normal(size=shape))
        size = max(1, weights.numel()) ** 0.5  # or large images would saturate the probe
        return _probes(lambda values: (values * weights).sum(-1) / size)


def measure_counterfactuals(
    run: Run,
    documents: Documents,
    spans: Sequence[Sequence[Any]],
    *,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    figures: Figures | None = None,
) -> CounterfactualResult:
    """Swap and mask the entities of a seeded sample of documents, one entity at a time.

    Replacements are drawn from all given documents. Entities without a fitting replacement, or in
    documents with too few other words, are left out and counted.

    Controls: a probe that reads the entities' tokens alone must be flagged, or these documents are
    too few, and other words must not move it. One that reads only the other tokens must not move
    when entities are swapped. Where either fails, the result is not valid.

    Args:
        run: the model and how it reads records.
        documents: held-out records as it reads them.
        spans: for each of them, its personal data: spans of texts, boxes of images.
        most: of the documents with personal data, how many to take at most.
        permutations: random signs for the p-values.
        resamples: of the bootstrap over documents.
        seed: of the sample, the replacements, the signs and the bootstrap.
        progress: called with documents done and their number.
        figures: takes in what swapping does, by document.
    """
    of_images = documents.data.kind == "image"
    finder: Finder = (
        _Regions(documents, spans, seed) if of_images else _Words(run, documents, spans, seed)
    )
    eligible = [d for d in range(len(documents)) if len(spans[d])]
    chosen = [eligible[i] for i in sample(len(eligible), most, seed)]
    answers = (_model_answer(run), *finder.probes(seed))
    cases: list[Case] = []
    effects: Floats = np.zeros((0, len(answers), KINDS, MEASURES))
    for done, d in enumerate(chosen, start=1):
        made = list(finder.cases(d))
        if made:
            effects = np.concatenate([effects, _intervene(answers, documents, d, made)])
        cases += made
        if progress:
            progress(done, len(chosen))
    present = sum((finder.present(d) for d in chosen), Counter[str]())
    origins = [(case.document, case.entity_type) for case in cases]
    statistics = EffectStatistics(chosen, origins, effects, present, permutations, resamples, seed)
    positive, null = probe_controls(statistics)
    if figures is not None:
        figures |= statistics.figures(chosen)
    return CounterfactualResult(
        documents=len(chosen),
        of_images=of_images,
        overall=statistics.effect(None),
        types=corrected([statistics.effect(kind) for kind in sorted(present)]),
        positive=positive,
        null=null,
        valid=positive.passed and null.passed,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
    )


def _cases(
    swapper: Swapper,
    documents: Documents,
    document: int,
    entities: Sequence[Entity],
    words: Sequence[Entity],
    seed: int,
) -> Iterator[_Case]:
    for number, entity in enumerate(entities):
        rng = np.random.default_rng([seed, document, number])
        swapped = swapper.swap(documents, document, entity, rng)
        null = swapper.swap_words(documents, document, words, len(entity.tokens), rng)
        if swapped is not None and null is not None:
            yield _Case(document, entity.kind, swapped, entity.tokens, *null)


def _intervene(
    answers: Sequence[Answer], documents: Documents, document: int, cases: Sequence[Case]
) -> Floats:
    """What each intervention does to each answer, [cases, answers, KINDS, MEASURES]."""
    inputs = documents.inputs([document])
    values, mask = inputs.values, inputs.mask
    sensitive = torch.from_numpy(documents.sensitive[document])[None]
    variants = [case.variants(values, mask) for case in cases]
    all_values, all_masks = (torch.cat(each) for each in zip(*variants, strict=True))
    measured = []
    with torch.inference_mode():
        for answer in answers:
            before = answer(values, mask, sensitive).double().numpy()
            after = answer(all_values, all_masks, sensitive).double().numpy()
            after = after.reshape(len(cases), KINDS, -1)
            measured.append(answer_changes(before[:, None], after))
    return np.stack(measured, axis=1)


def _model_answer(run: Run) -> Answer:
    return lambda values, mask, sensitive: CLASSIFY.answer(class_logits(run.model, values, mask))


def _probes(scores: Callable[[Tensor], Tensor]) -> tuple[Answer, Answer]:
    """Classifiers by the sum of scores [N, T]: of sensitive positions alone, of others alone."""

    def read(values: Tensor, chosen: Tensor) -> Tensor:
        score = (scores(values) * chosen).sum(-1)
        return torch.stack([score, -score], dim=-1).softmax(-1)

    return (
        lambda values, mask, sensitive: read(values, mask & sensitive),
        lambda values, mask, sensitive: read(values, mask & ~sensitive),
    )


def public_pool(run: Run) -> Pool:
    """Values and words of invented messages, which take the place of a record's own."""
    data = make_tickets(PUBLIC_TICKETS, seed=PUBLIC_SEED)
    assert data.spans is not None
    public = prepare(run.modality, data, data.spans)
    found = (
        each
        for document, spans in enumerate(data.spans)
        for each in (*find_entities(public, document, spans), *find_words(public, document))
    )
    return Pool(found)


def swap_apart(
    run: Run,
    documents: Documents,
    spans: Sequence[Sequence[Span]],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Figures:
    """Swap the entities of every document, each by itself, for figures that are noised.

    Claim: what a document adds depends on that document, its place and the seed, and on no other
    document: replacements are drawn from ``public_pool``. Types that no invented message has are
    left out, and so are the controls, which would look at the documents.

    Args:
        run: the model and its tokeniser.
        documents: tokenised held-out records, by that tokeniser.
        spans: for each of them, its personal data.
        seed: of the replacements.
        progress: called with documents done and their number.
    """
    swapper = Swapper(run.tokenizer, run.model.config.max_length, public_pool(run))
    answers = (_model_answer(run),)
    sums: Floats = np.zeros((len(documents), len(APART)))
    counts = np.zeros(len(documents))
    for d in range(len(documents)):
        entities, words = find_entities(documents, d, spans[d]), find_words(documents, d)
        if made := list(_cases(swapper, documents, d, entities, words, seed)):
            sums[d] = _effects(_intervene(answers, documents, d, made)[:, 0]).sum(0)
        counts[d] = len(made)
        if progress:
            progress(d + 1, len(documents))
    numbers = range(len(documents))
    return {
        f"counterfactual.overall.{name}": figure(numbers, column, counts)
        for name, column in zip(APART, sums.T, strict=True)
    }


def _effects(values: Floats) -> Floats:
    """What is read of each case under noise: [cases, KINDS, MEASURES] to [cases, 4]."""
    flips = values[:, (SWAP, SWAP_NULL), FLIP].T
    change, null = values[:, (SWAP, SWAP_NULL), CHANGE].T
    return np.stack([*flips, change, change - null], axis=1)


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    some = subject.taken(subject.options.counterfactual_documents)
    return some * KINDS * USUAL_ENTITIES


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> CounterfactualResult:
    """As a measure of an audit."""
    return measure_counterfactuals(
        subject.run,
        subject.documents,
        subject.spans_of(subject.rows.held_out),
        most=subject.affordable(subject.options.counterfactual_documents),
        progress=progress,
        figures=figures,
        **subject.options.draws,
    )


def passes_apart(subject: Subject) -> float:
    """Roughly how many documents ``run_apart`` sends through the model."""
    return len(subject.documents) * KINDS * USUAL_ENTITIES


def run_apart(subject: Subject, answers: Answers, progress: Progress, figures: Figures) -> int:
    """As a measure of an audit under noise; returns how many documents were looked at."""
    spans, seed = subject.spans_of(subject.rows.held_out), subject.options.seed
    figures |= swap_apart(subject.run, subject.documents, spans, seed, progress)
    return len(subject.documents)
