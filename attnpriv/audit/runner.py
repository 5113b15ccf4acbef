"""The whole audit of one run folder, or of several on the same rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.special import softmax

from attnpriv.audit.checklist.files import Checklist, default_checklist
from attnpriv.audit.comparison import Compared, compare
from attnpriv.audit.coverage import coverage, detect, gold
from attnpriv.audit.gradients import explained
from attnpriv.audit.leakage.served import ServedAnswers, match_answers
from attnpriv.audit.leakage.shadow_folder import ShadowModels, match_shadows
from attnpriv.audit.measures import (
    ALONE,
    MEASURES,
    OF_THE_PASS,
    AuditResult,
    Measure,
    check_skipped,
)
from attnpriv.audit.results import Audit, NotRun
from attnpriv.audit.subject import (
    Answers,
    AuditOptions,
    Pass,
    Subject,
    choose_rows,
)
from attnpriv.audit.tasks import (
    ATTENTION,
    GRADIENTS,
    MEMBERS,
    Measured,
    Task,
    attention_of,
    measure,
    parse,
    pieces,
    to_arrays,
)
from attnpriv.audit.workers import StageProgress, Workers, workers
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.explain.gradients import Attribution
from attnpriv.jobs import Executor
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.canaries import read_canaries
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector
from attnpriv.work_folder import WorkFolder

__all__ = ["AuditOptions", "audit_runs"]


def audit_runs(
    runs: Sequence[Run],
    data: Dataset,
    detector: Detector | None = None,
    options: AuditOptions | None = None,
    progress: StageProgress | None = None,
    *,
    shadows: Sequence[ShadowModels] = (),
    checklist: Checklist | None = None,
    answers: Sequence[ServedAnswers] = (),
    work: WorkFolder | None = None,
    executor: Executor | None = None,
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
            finds is hidden in the examples in either case. In images it finds nothing: what nobody
            marked there is not sensitive.
        options: how much to measure.
        progress: called with a stage's name, the number done and the total.
        shadows: shadow models of the runs, for stronger attacks; at most one folder for each run.
        checklist: behavioural tests; those that come with attnpriv where there are none.
        answers: audits of the answers of servers of the runs; at most one for each run.
        work: where finished pieces are kept and found again; None keeps none.
        executor: where the work is done; None: in this process.

    Raises:
        InputError: a measure to skip that there is not, no run, behavioural tests of other classes
            alone, classes that differ from a run's, neither gold spans nor a detector, shadow
            models of other runs or of other data, answers of other models, canaries of another run,
            or other data of which no row is known not to have been trained on.

    Claim: the same runs, data and options give the same bits, whatever the order and the pieces of
    the work, the number of processes and of processors, and wherever an audit was interrupted, on
    one machine with one set of libraries. Not covered: other processors' instructions, and other
    versions of the libraries.

    Not covered: a training text that somebody has changed passes for another one. None of the
    numbers is covered by the runs' ε.
    """
    options = options or AuditOptions()
    check_skipped(options.skip)
    detector = detector if data.kind == "text" else None
    report = progress or (lambda stage, done, total: None)
    check_inputs(runs, data, detector)
    checklist = checklist or default_checklist()
    check_behaviours(checklist, data)
    imitated = match_shadows([run.hashes for run in runs], data, shadows)
    served = match_answers([run.name for run in runs], answers)
    rows = [choose_rows(run, data, options) for run in runs]
    found = detect(data, rows, detector, partial(report, "finding personal data"))
    spans = found if detector and data.regions is None else gold(data, rows)
    subjects = [
        Subject(run, data, own, spans, options, of_run, read_canaries(run), checklist, of_server)
        for run, own, of_run, of_server in zip(runs, rows, imitated, served, strict=True)
    ]
    with one_thread():
        with workers(subjects, executor, work, report) as crew:
            passed = _explained(crew, subjects, passes(crew, subjects, detector))
            alone = _alone(crew, subjects, passed)
        audited = [
            _result(subject, own, measured)
            for subject, own, measured in zip(subjects, passed, alone, strict=True)
        ]
        return Audit(
            results=tuple(result for result, _ in audited),
            comparisons=tuple(compare(each, audited[0][1], options) for _, each in audited[1:]),
            coverage=coverage(data, rows[0].held_out, detector, found),
            options=asdict(options),
        )


def check_inputs(runs: Sequence[Run], data: Dataset, detector: Detector | None) -> None:
    """Raise InputError where runs, data and detector do not fit together."""
    if not runs:
        raise InputError("expected at least one run folder to audit, got none")
    for run in runs:
        if run.kind != data.kind:
            raise InputError(
                f"expected {run.kind}s, which {run.name} reads, got {data.name}: {data.kind}s"
            )
        if run.label_names != data.label_names:
            raise InputError(
                f"expected data with the {len(run.label_names)} classes of {run.name}, "
                f"{', '.join(run.label_names)}, got {len(data.label_names)} classes that differ"
            )
    if data.kind == "text" and data.regions is None and detector is None:
        raise InputError("the data has no gold spans of personal data: give a detector")


def check_behaviours(checklist: Checklist, data: Dataset) -> None:
    """Raise InputError where no behavioural test is about the classes of the data."""
    if not checklist.about(data.label_names):
        raise InputError(
            f"{checklist.source}: expected tests of invariance, or about one of the classes "
            f"{', '.join(data.label_names)}"
        )


def passes(crew: Workers, subjects: Sequence[Subject], detector: Detector | None) -> list[Pass]:
    """For each run its attention and answers on the held-out rows, and those on training rows."""
    tasks: list[Task] = []
    found = []
    for number, subject in enumerate(subjects):
        members = subject.rows.members or ()
        tasks += pieces(number, ATTENTION, range(len(subject.rows.held_out)))
        tasks += pieces(number, MEMBERS, range(len(members)))
        logits = np.zeros((len(members), len(subject.data.label_names)))
        found.append((attention_of(subject), logits))
    for task, content in crew.results(tasks):
        attention, logits = found[task.subject]
        assert task.documents is not None
        with readable(task):
            if task.stage == ATTENTION:
                attention.put(task.documents, to_arrays(content))
            else:
                logits[list(task.documents)] = to_arrays(content)["logits"]
    return [
        Pass(softmax(attention.logits, axis=1), softmax(logits, axis=1), attention, detector)
        for attention, logits in found
    ]


def _explained(crew: Workers, subjects: Sequence[Subject], passes: Sequence[Pass]) -> list[Pass]:
    """The same with the integrated gradients that the measures read."""
    tasks: list[Task] = []
    found: list[dict[int, Attribution]] = [{} for _ in passes]
    for number, (subject, passed) in enumerate(zip(subjects, passes, strict=True)):
        wanted = {
            d
            for each in MEASURES
            if each.explains and not subject.not_run(each.name, each.needs)
            for d in each.explains(subject, passed)
        }
        answers = Answers(passed.held_out, passed.members)
        tasks += pieces(number, GRADIENTS, sorted(wanted), answers)
    for task, content in crew.results(tasks):
        with readable(task):
            found[task.subject] |= explained(to_arrays(content))
    return [replace(passed, explained=own) for passed, own in zip(passes, found, strict=True)]


def _alone(
    crew: Workers, subjects: Sequence[Subject], passes: Sequence[Pass]
) -> list[dict[str, Measured]]:
    """For each run what each measure gives that is a piece of work of its own."""
    tasks = []
    found: list[dict[str, Measured]] = []
    for number, (subject, passed) in enumerate(zip(subjects, passes, strict=True)):
        answers = Answers(passed.held_out, passed.members, explained=passed.explained)
        found.append(_missing(subject, ALONE))
        tasks += [
            Task(number, each.name, answers=answers) for each in ALONE if each.name not in found[-1]
        ]
    for task, content in crew.results(tasks):
        with readable(task):
            found[task.subject][task.stage] = parse(task.stage, content)
    return found


@contextmanager
def readable(task: Task) -> Iterator[None]:
    """What cannot be read is a damaged piece of an audit that was interrupted."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot resume: {task.file} is damaged; remove it from the work folder"
        ) from error


def _missing(subject: Subject, measures: Sequence[Measure[Any]]) -> dict[str, Measured]:
    """Those that cannot be run, with the reason."""
    lacks = {each.name: subject.not_run(each.name, each.needs) for each in measures}
    return {name: Measured(NotRun(lack)) for name, lack in lacks.items() if lack}


def _result(
    subject: Subject, passed: Pass, alone: dict[str, Measured]
) -> tuple[AuditResult, Compared]:
    missing = _missing(subject, OF_THE_PASS)
    of_pass = {
        each.name: missing.get(each.name) or measure(each, subject, passed, _quietly)
        for each in OF_THE_PASS
    }
    measured = {each.name: (of_pass | alone)[each.name] for each in MEASURES}
    result = AuditResult(
        name=subject.run.name,
        card=subject.run.card.as_written,
        data_name=subject.data.name,
        held_out_rows=len(subject.documents),
        **{name: each.result for name, each in measured.items()},
    )
    figures = {path: own for each in measured.values() for path, own in each.figures.items()}
    return result, Compared.of(subject, passed, figures)


def _quietly(done: int, total: int) -> None:
    """The progress of what takes no time."""
