"""Causal swap and mask: does the answer change with a person's data and nothing else?

Each sensitive entity is replaced, in all its mentions, by another of the same type and the same
number of tokens (and of characters, where there is one) from other documents; and its tokens are
masked out of attention and pooling. Beside it stands the null: as many tokens of words that are not
sensitive, replaced by such words of other documents.

A type is flagged when swapping its values changes the predicted class's probability more than
swapping other words does. Not covered: a model that reads personal data less than other words is
not flagged and may still read it; its changes and flips stand there with their intervals.

Shapes: N rows, T tokens, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

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
"""Ids [N, T], mask [N, T] and which tokens are sensitive [N, T] to probabilities [N, K]."""


@dataclass(frozen=True)
class CounterfactualResult:
    """Causal swap and mask of sensitive entities, over all of them and for each type."""

    documents: int
    overall: EntityEffect
    types: tuple[EntityEffect, ...]
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class _Case:
    """An entity with its replacement, and with words that are not sensitive and theirs."""

    document: int
    entity_type: str
    swapped: Ids
    tokens: tuple[int, ...]
    null_swapped: Ids
    null_tokens: tuple[int, ...]


def measure_counterfactuals(
    run: Run,
    documents: Documents,
    spans: Sequence[Sequence[Span]],
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
        run: the model and its tokeniser.
        documents: tokenised held-out records, by that tokeniser.
        spans: for each of them, its personal data.
        most: of the documents with personal data, how many to take at most.
        permutations: random signs for the p-values.
        resamples: of the bootstrap over documents.
        seed: of the sample, the replacements, the signs and the bootstrap.
        progress: called with documents done and their number.
        figures: takes in what swapping does, by document.
    """
    assert isinstance(run.model, TextModel)  # it needs texts
    words = [find_words(documents, d) for d in range(len(documents))]
    entities = [find_entities(documents, d, spans[d]) for d in range(len(documents))]
    pool = Pool(each for found in (*entities, *words) for each in found)
    swapper = Swapper(run.tokenizer, run.model.config.max_length, pool)
    eligible = [d for d in range(len(documents)) if len(spans[d])]
    chosen = [eligible[i] for i in sample(len(eligible), most, seed)]
    answers = (_model_answer(run), *_probes(run.model.config.vocab_size, seed))
    cases: list[_Case] = []
    effects: Floats = np.zeros((0, len(answers), KINDS, MEASURES))
    for done, d in enumerate(chosen, start=1):
        made = list(_cases(swapper, documents, d, entities[d], words[d], seed))
        if made:
            effects = np.concatenate([effects, _intervene(answers, documents, d, made)])
        cases += made
        if progress:
            progress(done, len(chosen))
    texts = documents.data.records
    present = Counter(kind for d in chosen for kind, _ in entity_values(texts[d], spans[d]))
    origins = [(case.document, case.entity_type) for case in cases]
    statistics = EffectStatistics(chosen, origins, effects, present, permutations, resamples, seed)
    positive, null = probe_controls(statistics)
    if figures is not None:
        figures |= statistics.figures(chosen)
    return CounterfactualResult(
        documents=len(chosen),
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
    answers: Sequence[Answer], documents: Documents, document: int, cases: Sequence[_Case]
) -> Floats:
    """What each intervention does to each answer, [cases, answers, KINDS, MEASURES]."""
    inputs = documents.inputs([document])
    ids, mask = inputs.values, inputs.mask
    sensitive = torch.from_numpy(documents.sensitive[document])[None]
    all_ids, all_masks = (each.repeat(len(cases), KINDS, 1) for each in (ids, mask))
    for row, case in enumerate(cases):
        all_ids[row, 0] = torch.tensor(case.swapped)
        all_masks[row, 1, list(case.tokens)] = False
        all_ids[row, 2] = torch.tensor(case.null_swapped)
        all_masks[row, 3, list(case.null_tokens)] = False
    flat_ids, flat_masks = all_ids.flatten(0, 1), all_masks.flatten(0, 1)
    measured = []
    with torch.inference_mode():
        for answer in answers:
            before = answer(ids, mask, sensitive).double().numpy()
            after = answer(flat_ids, flat_masks, sensitive).double().numpy()
            after = after.reshape(len(cases), KINDS, -1)
            measured.append(answer_changes(before[:, None], after))
    return np.stack(measured, axis=1)


def _model_answer(run: Run) -> Answer:
    return lambda ids, mask, sensitive: CLASSIFY.answer(class_logits(run.model, ids, mask))


def _probes(vocab_size: int, seed: int) -> tuple[Answer, Answer]:
    """Two classifiers with random weights: of the sensitive tokens alone, of the others alone."""
    weights = torch.from_numpy(np.random.default_rng([seed, 5]).normal(size=vocab_size))

    def read(ids: Tensor, chosen: Tensor) -> Tensor:
        score = (weights[ids] * chosen).sum(-1)
        return torch.stack([score, -score], dim=-1).softmax(-1)

    return (
        lambda ids, mask, sensitive: read(ids, mask & sensitive),
        lambda ids, mask, sensitive: read(ids, mask & ~sensitive),
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
