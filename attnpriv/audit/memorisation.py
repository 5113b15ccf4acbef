"""Memorised entities: does swapping a person's data cost more where the model trained on it?

Two groups of documents: training rows and held-out rows. One entity at a time is replaced by an
unseen one of the same type and length (``attnpriv.audit.swapping``), and the fall of the true
label's log-odds is measured. A model that has learnt an entity by heart falls further without it
than without one that it never saw.

Both groups keep to entities that stand in one document only, of all that are given, and take their
replacements from the held-out ones. So under a model that learnt nothing from these rows, and a
random split, the groups differ by chance alone, also where the data give away the label: what
everybody in a class shares is lost in both groups alike.

Not covered: entities in several documents, of which no unseen counterpart exists. A model that
knows a training text as a whole by heart falls further too, whatever is changed in it.

Shapes: N rows, T tokens, K classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from attnpriv.audit.documents import Documents, sample
from attnpriv.audit.figures import Figures
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.statistics import Floats, auc, bootstrap_ratios
from attnpriv.audit.subject import USUAL_ENTITIES, Answers, Progress, Subject
from attnpriv.audit.swapping import (
    Entity,
    Ids,
    Key,
    Pool,
    Swapper,
    class_logits,
    entity_keys,
    entity_values,
    find_entities,
    without,
)
from attnpriv.data.records import Span
from attnpriv.estimates import (
    ROUNDING,
    SIGNIFICANT,
    UNDEFINED,
    Control,
    Estimate,
    percentile_interval,
)
from attnpriv.models.classifier import AttentionClassifier
from attnpriv.runs.folder import Run
from attnpriv.tasks import CLASSIFY
from attnpriv.verdicts import Claim, Judgement, judge

EXPECTED = (
    "a noisy probe that knows the training entities: p < 0.05",
    "documents shuffled between the groups: p of at least 0.001",
)


@dataclass(frozen=True)
class MemorisationResult:
    """Does swapping an entity seen in training cost more than swapping one that was not?

    Attributes:
        member_documents: training documents with a swapped entity.
        held_out_documents: held-out documents with a swapped entity.
        member_entities: entities swapped in the former, in no other of the given documents.
        held_out_entities: entities swapped in the latter, in no other of the given documents.
        left_out: other entities of the sampled documents: in several of the given ones, or without
            a fitting replacement.
        member_drop: fall of the true label's log-odds, mean over entities.
        held_out_drop: the same.
        difference: the first less the second.
        auc: area under the ROC curve of guessing a training document by the mean fall of its
            entities: one record a score, so that a claim bounds it.
        judgement: the verdict; something was found where it is flagged.
        p_value: one-sided, documents shuffled between the groups.
        flagged: whether that is below 0.05 and both controls passed.
    """

    member_documents: int
    held_out_documents: int
    member_entities: int
    held_out_entities: int
    left_out: int
    member_drop: Estimate
    held_out_drop: Estimate
    difference: Estimate
    auc: Estimate
    judgement: Judgement
    p_value: float | None
    flagged: bool
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class _Swap:
    """One entity replaced: what the true label lost, and the entity's token ids before and after.

    ``document`` counts the sampled training documents first, then the held-out ones.
    """

    document: int
    member: bool
    drop: float
    before: Ids
    after: Ids


def measure_memorisation(
    run: Run,
    members: Documents,
    member_spans: Sequence[Sequence[Span]],
    held_out: Documents,
    held_out_spans: Sequence[Sequence[Span]],
    *,
    trained_on: Sequence[str] = (),
    claim: Claim | None = None,
    most: int,
    permutations: int,
    resamples: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> MemorisationResult:
    """Swap entities of training rows and of held-out rows, and compare what the true label loses.

    Controls: a probe whose log-odds count the training entities in a text, with normal noise of
    deviation 1 on each change, must be flagged, or these documents are too few. With documents
    shuffled between the groups nothing may be found. Where either fails, the result is not valid.

    Args:
        run: the model and its tokeniser.
        members: tokenised training records, by that tokeniser.
        member_spans: for each of them, its personal data.
        held_out: tokenised records that the model was not trained on.
        held_out_spans: for each of them, its personal data.
        trained_on: texts of the other training records, where ``members`` are a sample of them: a
            value that one of these holds is no single one.
        claim: of the model, if it has one.
        most: of either group, how many documents to take at most.
        permutations: of the documents between the groups.
        resamples: of the bootstrap over documents.
        seed: of the samples, the replacements, the permutations and the bootstrap.
        progress: called with documents done and their number.
    """
    sides = ((members, member_spans), (held_out, held_out_spans))
    repeated = _repeated(sides, "\n".join(trained_on).casefold())
    entities = [_single_entities(*side, repeated) for side in sides]
    pool = Pool(entity for found in entities[1] for entity in found)
    swapper = Swapper(run.tokenizer, run.model.config.max_length, pool)
    samples = [_sample(found, most, seed) for found in entities]
    work = [(side, document) for side in (0, 1) for document in samples[side]]
    swaps: list[_Swap] = []
    values = 0
    for number, (side, document) in enumerate(work):
        documents, spans = sides[side]
        rng = np.random.default_rng([seed, side, document])
        made = _swap(run.model, swapper, documents, document, entities[side][document], rng)
        swaps += [_Swap(number, side == 0, *each) for each in made]
        values += len(entity_values(documents.data.records[document], spans[document]))
        if progress:
            progress(number + 1, len(work))
    return _result(swaps, values - len(swaps), claim, permutations, resamples, seed)


def _repeated(
    sides: Iterable[tuple[Documents, Sequence[Sequence[Span]]]], others: str
) -> frozenset[Key]:
    """The entities that stand in several documents, or in a document and the other texts."""
    known = Counter(
        key
        for documents, spans in sides
        for text, found in zip(documents.data.records, spans, strict=True)
        for key in entity_keys([text], [found])
    )
    return frozenset(key for key, count in known.items() if count > 1 or key[1] in others)


def _single_entities(
    documents: Documents, spans: Sequence[Sequence[Span]], repeated: Collection[Key]
) -> list[list[Entity]]:
    return [
        without(find_entities(documents, document, found), repeated)
        for document, found in enumerate(spans)
    ]


def _sample(entities: Sequence[Sequence[Entity]], most: int, seed: int) -> list[int]:
    eligible = [document for document, found in enumerate(entities) if found]
    return [eligible[i] for i in sample(len(eligible), most, seed)]


def _swap(
    model: AttentionClassifier,
    swapper: Swapper,
    documents: Documents,
    document: int,
    entities: Sequence[Entity],
    rng: np.random.Generator,
) -> Iterator[tuple[float, Ids, Ids]]:
    """Of each entity that can be swapped: the drop, its ids before and after."""
    before = documents.samples[document].ids
    tried = [(entity, swapper.swap(documents, document, entity, rng)) for entity in entities]
    swapped = [(entity.tokens, ids) for entity, ids in tried if ids is not None]
    ids = torch.tensor([before, *(after for _, after in swapped)])
    with torch.inference_mode():
        logits = class_logits(model, ids, torch.ones_like(ids, dtype=torch.bool)).double()
    labels = [documents.data.labels[document]] * len(ids)
    log_odds = true_label_log_odds(CLASSIFY.answer(logits).numpy(), labels)
    for drop, (tokens, after) in zip(log_odds[0] - log_odds[1:], swapped, strict=True):
        yield float(drop), tuple(before[t] for t in tokens), tuple(after[t] for t in tokens)


def _result(
    swaps: Sequence[_Swap],
    left_out: int,
    claim: Claim | None,
    permutations: int,
    resamples: int,
    seed: int,
) -> MemorisationResult:
    drops = np.array([swap.drop for swap in swaps])
    statistics = _Groups(swaps, permutations, seed)
    p_value = statistics.p_value(drops)
    positive, null = _controls(swaps, statistics, drops, seed)
    member_drop, held_out_drop, difference = statistics.means(drops, resamples)
    valid = positive.passed and null.passed
    flagged = valid and p_value is not None and p_value < SIGNIFICANT
    area = statistics.area(drops)
    placed = ("AUC", area, 0.5, claim.auc if claim else None)
    members = [swap for swap in swaps if swap.member]
    return MemorisationResult(
        member_documents=len({swap.document for swap in members}),
        held_out_documents=len({swap.document for swap in swaps if not swap.member}),
        member_entities=len(members),
        held_out_entities=len(swaps) - len(members),
        left_out=left_out,
        member_drop=member_drop,
        held_out_drop=held_out_drop,
        difference=difference,
        auc=area,
        judgement=judge([placed], claim, found=flagged, valid=valid),
        p_value=p_value,
        flagged=flagged,
        positive=positive,
        null=null,
        valid=valid,
        permutations=permutations,
        resamples=resamples,
        seed=seed,
    )


class _Groups:
    """Means over the entities of two groups of documents, which are resampled and shuffled."""

    def __init__(self, swaps: Sequence[_Swap], permutations: int, seed: int) -> None:
        documents = sorted({(swap.document, swap.member) for swap in swaps})
        position = {document: row for row, (document, _) in enumerate(documents)}
        self.rows = np.array([position[swap.document] for swap in swaps], dtype=np.int64)
        self.counts = np.bincount(self.rows, minlength=len(documents)).astype(np.float64)
        self.member = np.array([member for _, member in documents], dtype=np.bool_)
        rng = np.random.default_rng([seed, 9])
        drawn = rng.permuted(np.tile(self.member, (permutations + 1, 1)), axis=1)
        self.another, self.drawn = drawn[:1], drawn[1:]
        self.both = bool(self.member.any() and not self.member.all())
        self._seed = seed

    def sums(self, values: Floats) -> Floats:
        """Of each document's entities, [documents]."""
        return np.bincount(self.rows, values, len(self.counts)).astype(np.float64)

    def p_value(self, values: Floats, member: NDArray[np.bool_] | None = None) -> float | None:
        """One-sided: how often the gap is as large with documents shuffled between the groups.

        Args:
            values: one an entity.
            member: another division of the documents, [1, documents]; None is the true one.

        Returns:
            None where a group is empty.
        """
        if not self.both:
            return None
        sums = self.sums(values)
        observed = self._gaps(sums, self.member[None] if member is None else member)[0]
        tied = observed - ROUNDING * max(1.0, float(np.abs(values).max()))
        beyond = int((self._gaps(sums, self.drawn) >= tied).sum())
        return (1 + beyond) / (1 + len(self.drawn))

    def _gaps(self, sums: Floats, member: NDArray[np.bool_]) -> Floats:
        """Mean of the members' entities less that of the others', of each division [P, N]."""
        others = ~member
        return np.asarray(
            (member @ sums) / (member @ self.counts) - (others @ sums) / (others @ self.counts)
        )

    def area(self, values: Floats) -> Estimate:
        """Under the ROC curve of the documents' means."""
        if not self.both:
            return UNDEFINED
        means = self.sums(values) / self.counts
        return auc(means[self.member], means[~self.member])

    def means(self, values: Floats, resamples: int) -> tuple[Estimate, Estimate, Estimate]:
        """Of the members, of the others, and their difference; documents resampled in each."""
        if not self.both:
            return UNDEFINED, UNDEFINED, UNDEFINED
        sums, resampled, means = self.sums(values), [], []
        for number, group in enumerate((self.member, ~self.member)):
            own, counts = sums[group], self.counts[group]
            # With one seed, two groups of the same size would be resampled alike.
            drawn = bootstrap_ratios(own[:, None], counts, resamples, self._seed + number)
            resampled.append(drawn[:, 0])
            means.append(own.sum() / counts.sum())
        return (
            percentile_interval(means[0], resampled[0]),
            percentile_interval(means[1], resampled[1]),
            percentile_interval(means[0] - means[1], resampled[0] - resampled[1]),
        )


def _controls(
    swaps: Sequence[_Swap], statistics: _Groups, drops: Floats, seed: int
) -> tuple[Control, Control]:
    """The test on a probe that memorised, and on another division of the same documents."""
    known = {swap.before for swap in swaps if swap.member}
    lost = np.array([float(swap.before in known) - (swap.after in known) for swap in swaps])
    noisy = lost + np.random.default_rng([seed, 10]).normal(size=len(swaps))
    found = statistics.p_value(noisy)
    shuffled = statistics.p_value(drops, statistics.another)
    if found is None or shuffled is None:
        return Control(EXPECTED[0], 1.0, False), Control(EXPECTED[1], 1.0, False)
    return (
        Control(EXPECTED[0], found, found < SIGNIFICANT),
        Control(EXPECTED[1], shuffled, shuffled >= 0.001),
    )


def passes(subject: Subject) -> float:
    """Roughly how many documents ``run`` sends through the model."""
    return 2 * subject.taken(subject.options.memorisation_documents) * (1 + USUAL_ENTITIES)


def run(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> MemorisationResult:
    """As a measure of an audit."""
    return measure_memorisation(
        subject.run,
        subject.members,
        subject.spans_of(subject.rows.members),
        subject.documents,
        subject.spans_of(subject.rows.held_out),
        trained_on=subject.other_training_texts,
        claim=claim_of(subject.run),
        most=subject.affordable(subject.options.memorisation_documents),
        progress=progress,
        **subject.options.draws,
    )
