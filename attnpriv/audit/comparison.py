"""One run against another: the same figures, on the same documents, with the same resamples.

Every figure is a ratio of sums over documents (``attnpriv.audit.figures``), so one bootstrap serves
all: it draws documents, and both runs' figures are taken from the same draws. What makes documents
easy or hard for both cancels in the difference. The areas under the ROC curve of the membership
test are no such ratios and have DeLong's covariance instead.

Not covered: how much two trainings of one kind differ. One run a side compares these two models,
not the two ways to train them; that needs several seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attnpriv.audit.figures import Figure, Figures
from attnpriv.audit.leakage import membership
from attnpriv.audit.lift import LiftAccumulator, bootstrap_columns, paired_ratio
from attnpriv.audit.statistics import Floats, auc_difference
from attnpriv.audit.subject import AuditOptions, Pass, Rows, Subject
from attnpriv.estimates import UNDEFINED, Estimate, percentile_interval

AUC = "membership.auc"


@dataclass(frozen=True)
class PairedDifference:
    """One figure of a run less the same figure of another, paired.

    Attributes:
        measure: which figure, as its dotted path in ``AuditResult``.
        ours: of the run.
        theirs: of the other.
        difference: ours less theirs, on the same resamples of the same documents.
        documents: on which both were measured.
    """

    measure: str
    ours: float | None
    theirs: float | None
    difference: Estimate
    documents: int


@dataclass(frozen=True)
class Comparison:
    """One run against another, on the same documents and resamples.

    ``lift_ratio`` is that of the overall attention lifts, undefined where a run has none.
    """

    run: str
    against: str
    lift_ratio: Estimate
    differences: tuple[PairedDifference, ...]
    not_run: str | None


@dataclass(frozen=True)
class Compared:
    """What of an audited run can be compared.

    Attributes:
        name: of the run.
        rows: that it was audited on.
        content: attention on content tokens; None without attention between positions.
        figures: by their paths; ``[*]`` stands for the mean over a list, ``[x]`` for its entry x.
        scores: log-odds of the true label of members, and of the others; None without the test.
    """

    name: str
    rows: Rows
    content: LiftAccumulator | None
    figures: Figures
    scores: tuple[Floats, Floats] | None

    @classmethod
    def of(cls, subject: Subject, passed: Pass, figures: Figures) -> Compared:
        """Put together from what the audit measured."""
        rows = subject.rows
        tested = not (rows.lack("members") or rows.lack("non-members"))
        scores = membership.scores(subject, passed) if tested else None
        content = None if subject.lack(("self-attention",)) else passed.attention.content
        return cls(subject.run.name, rows, content, figures, scores)


def compare(ours: Compared, theirs: Compared, options: AuditOptions) -> Comparison:
    """All figures that both runs have, as differences with intervals.

    A figure that was measured on a sample is compared on the documents that are in both samples.
    The membership test is compared where both runs were trained on the same rows.
    """
    if ours.rows.held_out != theirs.rows.held_out:
        reason = "their held-out rows differ"
        return Comparison(ours.name, theirs.name, UNDEFINED, (), reason)
    draws = options.resamples, options.seed
    found = {each.measure: each for each in _differences(ours.figures, theirs.figures, *draws)}
    differences = [found[path] for path in ours.figures if path in found]
    if ours.scores and theirs.scores and ours.rows == theirs.rows:
        rows = sum(len(scores) for scores in ours.scores)
        areas = auc_difference(ours.scores, theirs.scores)
        differences.append(PairedDifference(AUC, *areas, rows))
    ratio = UNDEFINED
    if ours.content is not None and theirs.content is not None:
        ratio = paired_ratio(ours.content, theirs.content, *draws)
    return Comparison(ours.name, theirs.name, ratio, tuple(differences), None)


def _differences(
    ours: Figures, theirs: Figures, resamples: int, seed: int
) -> Iterator[PairedDifference]:
    """Those on the same documents together, for one set of draws serves them."""
    together: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for path in ours:
        if path in theirs:
            common = sorted({*ours[path].documents} & {*theirs[path].documents})
            together[tuple(common)].append(path)
    for documents, paths in together.items():
        if documents:
            both = [each[path] for path in paths for each in (ours, theirs)]
            yield from _paired(paths, both, documents, resamples, seed)


def _paired(
    paths: Sequence[str],
    both: Sequence[Figure],
    documents: tuple[int, ...],
    resamples: int,
    seed: int,
) -> Iterator[PairedDifference]:
    """Differences of figures that stand by pairs, ours first."""
    parts = [_parts(each, documents) for each in both]
    above, below = (np.stack(columns, axis=1) for columns in zip(*parts, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        values = above.sum(0) / below.sum(0)
    drawn = bootstrap_columns(above, below, resamples, seed)
    for i, path in enumerate(paths):
        own, other = values[2 * i : 2 * i + 2].tolist()
        yield PairedDifference(
            measure=path,
            ours=own if np.isfinite(own) else None,
            theirs=other if np.isfinite(other) else None,
            difference=percentile_interval(own - other, drawn[:, 2 * i] - drawn[:, 2 * i + 1]),
            documents=len(documents),
        )


def _parts(each: Figure, documents: tuple[int, ...]) -> tuple[Floats, Floats]:
    row = {document: i for i, document in enumerate(each.documents)}
    rows = [row[document] for document in documents]
    return np.array(each.numerators)[rows], np.array(each.denominators)[rows]
