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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from attnpriv.audit.attention import AttentionAccumulator
from attnpriv.audit.figures import Figure, Figures, figure
from attnpriv.audit.leakage.membership import true_label_log_odds
from attnpriv.audit.lift import LiftAccumulator, bootstrap_columns, group_means, paired_ratio
from attnpriv.audit.results import Comparison, PairedDifference
from attnpriv.audit.stages import Answers, Measured
from attnpriv.audit.statistics import Floats, auc_difference
from attnpriv.audit.subject import AuditOptions, Rows, Subject
from attnpriv.estimates import UNDEFINED, percentile_interval

AUC = "membership.auc"


@dataclass(frozen=True)
class Compared:
    """What of an audited run can be compared.

    Attributes:
        name: of the run.
        rows: that it was audited on.
        content: attention on content tokens.
        figures: by their paths; ``[*]`` stands for the mean over a list, ``[x]`` for its entry x.
        scores: log-odds of the true label of members, and of the others; None without the test.
    """

    name: str
    rows: Rows
    content: LiftAccumulator
    figures: Figures
    scores: tuple[Floats, Floats] | None

    @classmethod
    def of(
        cls,
        subject: Subject,
        attention: AttentionAccumulator,
        answers: Answers,
        stages: Mapping[str, Measured],
    ) -> Compared:
        """Put together from what the audit measured."""
        figures = _figures_of_pass(subject, attention, answers)
        for stage in stages.values():
            figures |= stage.figures
        scores = None
        if not subject.rows.without_members:
            scores = (
                true_label_log_odds(answers.members, subject.members.data.labels),
                true_label_log_odds(answers.held_out, subject.documents.data.labels)[
                    subject.unseen
                ],
            )
        return cls(subject.run.name, subject.rows, attention.content, figures, scores)


def _figures_of_pass(
    subject: Subject, attention: AttentionAccumulator, answers: Answers
) -> Figures:
    right = answers.held_out.argmax(1) == np.asarray(subject.documents.data.labels)
    content, flow, heads = attention.content, attention.flow, attention.heads
    columns: dict[str, tuple[Floats, Floats | float]] = {
        "utility.accuracy": (right.astype(np.float64), 1.0),
        "attention.overall.lift": (content.mean_shares(), content.uniform),
        "attention.matched.lift": (_mean(heads.paired), _mean(heads.partners)),
        "attention.heads[*].normalised_entropy": (_mean(attention.entropy), 1.0),
        "attention.heads[*].special_mass": (_mean(attention.special), 1.0),
        "flow.rollout.permuted.lift": (
            flow.rollout.permuted.mean_shares(),
            flow.rollout.permuted.uniform,
        ),
        "flow.norm_weighted.permuted.lift": (
            flow.norm_weighted.permuted.mean_shares(),
            flow.norm_weighted.permuted.uniform,
        ),
    }
    return {
        path: figure(range(len(right)), above, below) for path, (above, below) in columns.items()
    }


def _mean(values: Floats) -> Floats:
    """Of each document's values [N, S]."""
    return np.asarray(group_means(values, 1)[:, 0])


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
