"""The whole audit of one run folder, or of several on the same rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy.special import softmax

from attnpriv.audit.attention import AttentionAccumulator
from attnpriv.audit.comparison import Compared, compare
from attnpriv.audit.examples import examples
from attnpriv.audit.results import Audit, AuditResult, DetectorCoverage
from attnpriv.audit.stages import STAGES, Answers, Measured, parse
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import AuditOptions, Rows, Spans, Subject, choose_rows
from attnpriv.audit.tasks import (
    ATTENTION,
    MEMBERS,
    Task,
    attention_of,
    one_thread,
    pieces,
    to_arrays,
)
from attnpriv.audit.utility import utility
from attnpriv.audit.work import WorkFolder
from attnpriv.audit.workers import Report, Workers, workers
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector, span_quality

__all__ = ["AuditOptions", "audit_runs"]


def audit_runs(
    runs: Sequence[Run],
    data: Dataset,
    detector: Detector | None = None,
    options: AuditOptions | None = None,
    progress: Report | None = None,
    *,
    work: WorkFolder | None = None,
    processes: int = 1,
) -> Audit:
    """Audit run folders side by side on rows that none of them was trained on.

    A run whose card names this data set (by fingerprint) is audited on its own held-out rows, and
    its training rows are the members of the membership test. Of any other data a run is audited on
    the rows that it cannot have been trained on, as ``Run.split`` knows them, and the membership
    test is not run.

    Args:
        runs: at least one; the others are compared with the first.
        data: labelled rows; its gold spans say what is sensitive, where it has them.
        detector: finds sensitive spans where the data has none, and is scored where it has; what it
            finds is hidden in the examples in either case.
        options: how much to measure.
        progress: called with a stage's name, the number done and the total.
        work: where finished pieces are kept and found again; None keeps none.
        processes: that share the work; with several, the calling script is imported by each.

    Raises:
        InputError: no run, classes that differ from a run's, neither gold spans nor a detector, or
            other data of which no row is known not to have been trained on.

    Claim: the same runs, data and options give the same bits, whatever the order and the pieces of
    the work, the number of processes and of processors, and wherever an audit was interrupted, on
    one machine with one set of libraries. Not covered: other processors' instructions, and other
    versions of the libraries.

    Not covered: a training text that somebody has changed passes for another one. None of the
    numbers is covered by the runs' ε.
    """
    options = options or AuditOptions()
    report = progress or (lambda stage, done, total: None)
    _check(runs, data, detector, processes)
    rows = [choose_rows(run, data, options) for run in runs]
    found = _detect(data, rows, detector, report)
    spans = found if data.spans is None else _gold(data, rows)
    subjects = [
        Subject(run, data, own, spans, options) for run, own in zip(runs, rows, strict=True)
    ]
    with one_thread():
        with workers(subjects, processes, work, report) as crew:
            passes = _passes(crew, subjects)
            answers = [_answers(attention, logits) for attention, logits in passes]
            stages = _stages(crew, answers)
        audited = [
            _result(subject, attention, answer, stage, detector)
            for subject, (attention, _), answer, stage in zip(
                subjects, passes, answers, stages, strict=True
            )
        ]
        return Audit(
            results=tuple(result for result, _ in audited),
            comparisons=tuple(compare(each, audited[0][1], options) for _, each in audited[1:]),
            coverage=_coverage(data, rows[0].held_out, detector, found),
            options=asdict(options),
        )


def _check(runs: Sequence[Run], data: Dataset, detector: Detector | None, processes: int) -> None:
    if not runs:
        raise InputError("expected at least one run folder to audit, got none")
    if processes < 1:
        raise InputError(f"expected at least one process, got {processes}")
    for run in runs:
        if run.label_names != data.label_names:
            raise InputError(
                f"expected data with the {len(run.label_names)} classes of {run.name}, "
                f"{', '.join(run.label_names)}, got {len(data.label_names)} classes that differ"
            )
    if data.spans is None and detector is None:
        raise InputError("the data has no gold spans of personal data: give a detector")


def _detect(
    data: Dataset, rows: Sequence[Rows], detector: Detector | None, report: Report
) -> Spans:
    """What the detector finds: in all rows where it is needed, else in those it is scored on."""
    if detector is None:
        return {}
    wanted = _all(rows) if data.spans is None else sorted(rows[0].held_out)
    found = {}
    for row in wanted:
        found[row] = detector.detect(data.texts[row])
        report("finding personal data", len(found), len(wanted))
    return found


def _gold(data: Dataset, rows: Sequence[Rows]) -> Spans:
    assert data.spans is not None
    return {row: data.spans[row] for row in _all(rows)}


def _all(rows: Iterable[Rows]) -> list[int]:
    return sorted({row for own in rows for row in (*own.held_out, *(own.members or ()))})


def _passes(
    crew: Workers, subjects: Sequence[Subject]
) -> list[tuple[AttentionAccumulator, Floats]]:
    """For each run its attention on the held-out rows, and its logits for the training rows."""
    tasks: list[Task] = []
    passes = []
    for number, subject in enumerate(subjects):
        members = subject.rows.members or ()
        tasks += pieces(number, ATTENTION, len(subject.rows.held_out))
        tasks += pieces(number, MEMBERS, len(members))
        logits = np.zeros((len(members), len(subject.data.label_names)))
        passes.append((attention_of(subject), logits))
    for task, content in crew.results(tasks):
        attention, logits = passes[task.subject]
        assert task.documents is not None
        with _readable(task):
            if task.stage == ATTENTION:
                attention.put(task.documents, to_arrays(content))
            else:
                logits[task.documents] = to_arrays(content)["logits"]
    return passes


def _answers(attention: AttentionAccumulator, members: Floats) -> Answers:
    return Answers(softmax(attention.logits, axis=1), softmax(members, axis=1))


def _stages(crew: Workers, answers: Sequence[Answers]) -> list[dict[str, Measured]]:
    """For each run what each stage gives."""
    tasks = [
        Task(number, stage, answers=own) for number, own in enumerate(answers) for stage in STAGES
    ]
    found: list[dict[str, Measured]] = [{} for _ in answers]
    for task, content in crew.results(tasks):
        with _readable(task):
            found[task.subject][task.stage] = parse(task.stage, content)
    return found


@contextmanager
def _readable(task: Task) -> Iterator[None]:
    """What cannot be read is a damaged piece of an audit that was interrupted."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot resume: {task.file} is damaged; remove it from the work folder"
        ) from error


def _result(
    subject: Subject,
    attention: AttentionAccumulator,
    answers: Answers,
    stages: dict[str, Measured],
    detector: Detector | None,
) -> tuple[AuditResult, Compared]:
    run, data, options = subject.run, subject.documents.data, subject.options
    draws: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}
    result = AuditResult(
        name=run.name,
        card=run.card,
        data_name=data.name,
        held_out_rows=len(data),
        utility=utility(data.labels, answers.held_out, data.label_names, **draws),
        attention=attention.result(run.model.config.attention, **draws),
        flow=attention.flow.result(options.resamples),
        memorisation_not_run=subject.rows.without_members,
        membership_not_run=subject.rows.without_members,
        examples=examples(
            run.model,
            subject.documents,
            subject.spans_of(subject.rows.held_out),
            answers.held_out,
            attention.content,
            options.examples,
            options.ig_steps,
            detector,
        ),
        **{name: stage.result for name, stage in stages.items()},
    )
    return result, Compared.of(subject, attention, answers, stages)


def _coverage(
    data: Dataset, rows: Sequence[int], detector: Detector | None, found: Spans
) -> DetectorCoverage:
    """Who marked personal data, and the detector's quality wherever gold spans can tell."""
    if data.spans is None:
        assert detector is not None
        return DetectorCoverage(detector.name, detector.entity_types, detector.cannot_see, None)
    gold = [data.spans[row] for row in rows]
    types = tuple(sorted({span.entity_type for spans in gold for span in spans}))
    if detector is None:
        return DetectorCoverage("gold spans", types, (), None)
    quality = span_quality([found[row] for row in rows], gold)
    return DetectorCoverage("gold spans", types, detector.cannot_see, quality)
