"""The whole audit of one run folder, or of several on the same rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from attnpriv.audit.attention import AttentionAccumulator, measure_attention
from attnpriv.audit.attribution import measure_attribution
from attnpriv.audit.documents import Documents, prepare, sample
from attnpriv.audit.examples import examples
from attnpriv.audit.leakage.membership import membership, true_label_log_odds
from attnpriv.audit.lift import paired_ratio
from attnpriv.audit.results import (
    Audit,
    AuditResult,
    Comparison,
    DetectorCoverage,
    MembershipResult,
)
from attnpriv.audit.robustness import embedding_attacks
from attnpriv.audit.statistics import UNDEFINED, Floats
from attnpriv.audit.utility import utility
from attnpriv.data.records import Dataset, Span
from attnpriv.errors import InputError
from attnpriv.models.text import pooled_features
from attnpriv.prediction import predict_probabilities
from attnpriv.run_folder import Run
from attnpriv.sensitive import Detector, detector_quality

Progress = Callable[[str, int, int], None]
FEATURE_ROWS = 400  # held-out rows for the positive control of the membership test


@dataclass(frozen=True)
class AuditOptions:
    """How much to measure.

    Attributes:
        documents: held-out rows at most, for utility, attention and as non-members.
        members: training rows at most, for the membership test.
        ig_documents: of the held-out rows with personal data, how many get integrated gradients.
        ig_steps: points on each path.
        pgd_documents: of the held-out rows, how many are attacked.
        examples: documents shown token by token.
        permutations: of the sensitivity labels, for the null.
        resamples: of the bootstrap.
        seed: of every sample, null and bootstrap.
    """

    documents: int = 1200
    members: int = 1200
    ig_documents: int = 48
    ig_steps: int = 20
    pgd_documents: int = 80
    examples: int = 4
    permutations: int = 1000
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < (0 if name in ("seed", "examples") else 1):
                raise InputError(f"expected {name} to be positive, got {value}")


@dataclass(frozen=True)
class _Rows:
    """Row numbers that a run is audited on.

    Attributes:
        members: sampled training rows; None where this is not the data trained on.
        held_out: sampled rows that were not trained on.
        repeated: those of them whose text also is a training row, and so are no non-members.
    """

    members: list[int] | None
    held_out: list[int]
    repeated: frozenset[int]


def audit_runs(
    runs: Sequence[Run],
    data: Dataset,
    detector: Detector | None = None,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Audit run folders side by side on rows that none of them was trained on.

    A run whose card names this data set (by fingerprint) is audited on its own held-out rows, and
    its training rows are the members of the membership test. For any other run the whole data set
    counts as held out, and the membership test is not run.

    Args:
        runs: at least one; the others are compared with the first.
        data: labelled rows; its gold spans say what is sensitive, where it has them.
        detector: finds sensitive spans where the data has none, and is scored where it has.
        options: how much to measure.
        progress: called with a stage's name, the number done and the total.

    Raises:
        InputError: no run, classes that differ from a run's, or neither gold spans nor a detector.

    Not covered: a data set that is not the one trained on but holds some of its rows passes for
    held out. None of the numbers is covered by the runs' ε.
    """
    options = options or AuditOptions()
    report = progress or (lambda stage, done, total: None)
    _check(runs, data, detector)
    splits = [_split(run, data, options) for run in runs]
    spans = _find_spans(data, {row for split in splits for row in split.held_out}, detector, report)
    audited = [
        _audit(run, data, split, spans, options, report)
        for run, split in zip(runs, splits, strict=True)
    ]
    return Audit(
        results=tuple(result for result, _ in audited),
        comparisons=tuple(
            _compare(
                runs[i],
                runs[0],
                audited[i][1],
                audited[0][1],
                splits[i].held_out == splits[0].held_out,
                options,
            )
            for i in range(1, len(runs))
        ),
        coverage=_coverage(data, splits[0].held_out, detector),
        options=asdict(options),
    )


def _check(runs: Sequence[Run], data: Dataset, detector: Detector | None) -> None:
    if not runs:
        raise InputError("expected at least one run folder to audit, got none")
    for run in runs:
        if run.label_names != data.label_names:
            raise InputError(
                f"expected data with the classes of {run.name}, {list(run.label_names)}, "
                f"got {list(data.label_names)}"
            )
    if data.spans is None and detector is None:
        raise InputError("the data has no gold spans of personal data: give a detector")


def _split(run: Run, data: Dataset, options: AuditOptions) -> _Rows:
    train, held_out = run.split(data)
    rows = [held_out[i] for i in sample(len(held_out), options.documents, options.seed)]
    if train is None:
        return _Rows(None, rows, frozenset())
    known = {data.texts[row] for row in train}
    return _Rows(
        [train[i] for i in sample(len(train), options.members, options.seed)],
        rows,
        frozenset(row for row in rows if data.texts[row] in known),
    )


def _find_spans(
    data: Dataset, rows: set[int], detector: Detector | None, report: Progress
) -> dict[int, tuple[Span, ...]]:
    if data.spans is not None:
        return {row: data.spans[row] for row in rows}
    assert detector is not None  # _check refused that
    found = {}
    for row in sorted(rows):
        found[row] = detector.detect(data.texts[row])
        report("finding personal data", len(found), len(rows))
    return found


def _audit(
    run: Run,
    data: Dataset,
    rows: _Rows,
    spans: dict[int, tuple[Span, ...]],
    options: AuditOptions,
    report: Progress,
) -> tuple[AuditResult, AttentionAccumulator]:
    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, total: report(f"{run.name}: {name}", done, total)

    seed, resamples = options.seed, options.resamples
    held_out = data.subset(rows.held_out)
    row_spans = [spans[row] for row in rows.held_out]
    documents = prepare(run.tokenizer, run.model.config.max_length, held_out, row_spans)
    probabilities = predict_probabilities(
        run, held_out.texts, progress=stage("predictions")
    ).astype(np.float64)
    attention = measure_attention(
        run.model, documents, options.permutations, seed, stage("attention")
    )
    result = AuditResult(
        name=run.name,
        card=run.card,
        data_name=data.name,
        held_out_rows=len(held_out),
        utility=utility(held_out.labels, probabilities, data.label_names, seed, resamples),
        attention=attention.result(run.model.config.attention, resamples, seed),
        attribution=measure_attribution(
            run.model,
            documents,
            probabilities.argmax(1).tolist(),
            most=options.ig_documents,
            steps=options.ig_steps,
            permutations=options.permutations,
            resamples=resamples,
            seed=seed,
            progress=stage("integrated gradients"),
        ),
        membership=_membership(
            run, data, rows, documents, probabilities, seed, stage("predictions for members")
        ),
        membership_not_run=_why_no_membership(rows),
        robustness=embedding_attacks(
            run.model, documents, options.pgd_documents, seed, stage("FGSM and PGD")
        ),
        examples=examples(
            run.model,
            documents,
            row_spans,
            probabilities,
            options.examples,
            options.ig_steps,
            seed,
        ),
    )
    return result, attention


def _why_no_membership(rows: _Rows) -> str | None:
    if rows.members is None:
        return "the training rows are not in this data, so there are no members to test"
    if len(rows.repeated) == len(rows.held_out):
        return "every held-out text is also a training row, so there are no non-members"
    return None


def _membership(
    run: Run,
    data: Dataset,
    rows: _Rows,
    documents: Documents,
    probabilities: Floats,
    seed: int,
    progress: Callable[[int, int], None],
) -> MembershipResult | None:
    if rows.members is None or _why_no_membership(rows):
        return None
    members = data.subset(rows.members)
    theirs = predict_probabilities(run, members.texts, progress=progress).astype(np.float64)
    unseen = [d for d, row in enumerate(rows.held_out) if row not in rows.repeated]
    encodings = [documents.encodings[unseen[i]] for i in sample(len(unseen), FEATURE_ROWS, seed)]
    return membership(
        true_label_log_odds(theirs, members.labels),
        true_label_log_odds(probabilities, documents.data.labels)[unseen],
        pooled_features(run.model, encodings, documents.pad_id).double().numpy(),
        len(data.label_names),
        seed,
        repeated=len(rows.repeated),
    )


def _compare(
    run: Run,
    against: Run,
    ours: AttentionAccumulator,
    theirs: AttentionAccumulator,
    same_rows: bool,
    options: AuditOptions,
) -> Comparison:
    if not same_rows:
        return Comparison(run.name, against.name, UNDEFINED, "their held-out rows differ")
    ratio = paired_ratio(ours.content, theirs.content, options.resamples, options.seed)
    return Comparison(run.name, against.name, ratio, None)


def _coverage(data: Dataset, rows: list[int], detector: Detector | None) -> DetectorCoverage:
    """Who marked personal data, and the detector's quality wherever gold spans can tell."""
    if data.spans is None:
        assert detector is not None
        return DetectorCoverage(detector.name, detector.entity_types, detector.cannot_see, None)
    held_out = data.subset(rows)
    gold = held_out.spans or ()
    types = tuple(sorted({span.entity_type for spans in gold for span in spans}))
    if detector is None:
        return DetectorCoverage("gold spans", types, (), None)
    quality = detector_quality(detector, held_out.texts, gold)
    return DetectorCoverage("gold spans", types, detector.cannot_see, quality)
