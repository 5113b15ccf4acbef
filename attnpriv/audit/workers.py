"""Who does the pieces of an audit: this process, or others that each get the runs and the rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from attnpriv.audit.checklist.files import Checklist
from attnpriv.audit.leakage.shadow_folder import ShadowModels
from attnpriv.audit.subject import AuditOptions, Rows, Spans, Subject
from attnpriv.audit.tasks import EXACT, WHOLE, WORDS, Task, expected_passes
from attnpriv.data.records import Dataset
from attnpriv.jobs import Executor, Told
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.canaries import Canaries
from attnpriv.runs.packing import FolderOfRun
from attnpriv.work_folder import WorkFolder

StageProgress = Callable[[str, int, int], None]
Perform = Callable[[Iterable[Task]], Iterator[tuple[Task, bytes]]]


class Workers:
    """Does tasks, keeps what is finished, and says how far they are.

    Args:
        subjects: the runs under audit.
        perform: does tasks, in any order.
        work: where finished tasks are kept; None keeps none.
        meter: what is told about progress.
    """

    def __init__(self, perform: Perform, meter: Meter, work: WorkFolder | None) -> None:
        self._perform, self._meter, self._work = perform, meter, work

    def results(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, bytes]]:
        """Each task with its result, first those that are finished already, in any order."""
        self._meter.expect(tasks)
        missing = []
        for task in tasks:
            content = self._work.read(task.file) if self._work else None
            if content is None:
                missing.append(task)
                continue
            self._meter.finish(task)
            yield task, content
        for task, content in self._perform(missing):
            if self._work:
                self._work.write(task.file, content)
            self._meter.finish(task)
            yield task, content


class Meter:
    """Adds up the progress of tasks by run and stage, and of the whole audit; reports it in words.

    Args:
        subjects: the runs under audit.
        report: called with a stage's name, or ``WHOLE``, what is done of it and the total.
        stages: of which the whole audit consists.
    """

    def __init__(
        self, subjects: Sequence[Subject], report: StageProgress, stages: Collection[str]
    ) -> None:
        self._names, self._report = [subject.run.name for subject in subjects], report
        self._done: dict[Task, tuple[int, int]] = {}
        self._passes = {
            (number, stage): passes
            for number, subject in enumerate(subjects)
            for stage, passes in expected_passes(subject).items()
            if stage in stages
        }

    def expect(self, tasks: Iterable[Task]) -> None:
        """Say what is to come."""
        self._done |= {task: (0, len(task.documents or ())) for task in tasks}

    def note(self, task: Task, done: int, total: int) -> None:
        """Say how far a task is."""
        self._done[task] = done, total
        key = task.subject, task.stage
        parts = [parts for each, parts in self._done.items() if (each.subject, each.stage) == key]
        name = f"{self._names[task.subject]}: {WORDS[task.stage]}"
        self._report(name, sum(done for done, _ in parts), sum(total for _, total in parts))
        self._report(WHOLE, round(self._passes_done()), round(sum(self._passes.values())))

    def _passes_done(self) -> float:
        """What is done of the whole audit, where each stage counts by the passes it takes."""
        stages: dict[tuple[int, str], list[float]] = defaultdict(list)
        for task, (done, total) in self._done.items():
            stages[task.subject, task.stage].append(done / max(total, 1))
        return sum(self._passes[stage] * fmean(shares) for stage, shares in stages.items())

    def finish(self, task: Task) -> None:
        """Say that a task is done."""
        total = max(self._done[task][1], 1)
        self.note(task, total, total)


@contextmanager
def workers(
    subjects: Sequence[Subject],
    executor: Executor | None,
    work: WorkFolder | None,
    report: StageProgress,
    stages: Collection[str] = EXACT,
) -> Iterator[Workers]:
    """Workers in this process, or elsewhere; those end with the block."""
    meter = Meter(subjects, report, stages)
    if executor is None:
        yield Workers(partial(_here, subjects, meter), meter, work)
        return
    with executor.crew(_job(subjects)) as crew:
        yield Workers(lambda tasks: crew(tasks, meter.note), meter, work)


def _here(
    subjects: Sequence[Subject], meter: Meter, tasks: Iterable[Task]
) -> Iterator[tuple[Task, bytes]]:
    for task in tasks:
        yield task, task.perform(subjects[task.subject], partial(meter.note, task))


@dataclass(frozen=True)
class _Job:
    """What a process needs to make the same subjects."""

    resumable = True
    runs: tuple[FolderOfRun, ...]
    rows: tuple[Rows, ...]
    data: Dataset
    spans: Spans
    options: AuditOptions
    shadows: tuple[ShadowModels | None, ...]
    canaries: tuple[Canaries | None, ...]
    checklist: Checklist

    def packed(self) -> _Job:
        return replace(self, runs=tuple(run.packed() for run in self.runs))

    def begin(self) -> Callable[[Task, Told], bytes]:
        data, spans, options = self.data, self.spans, self.options
        subjects = [
            Subject(run.load(), data, rows, spans, options, shadows, canaries, self.checklist)
            for run, rows, shadows, canaries in zip(
                self.runs, self.rows, self.shadows, self.canaries, strict=True
            )
        ]

        def perform(task: Task, told: Told) -> bytes:
            with one_thread():
                return task.perform(subjects[task.subject], told)

        return perform


def _job(subjects: Sequence[Subject]) -> _Job:
    first = subjects[0]
    return _Job(
        tuple(FolderOfRun.of(subject.run) for subject in subjects),
        tuple(subject.rows for subject in subjects),
        first.data,
        first.spans,
        first.options,
        tuple(subject.shadows for subject in subjects),
        tuple(subject.canaries for subject in subjects),
        first.checklist,
    )
