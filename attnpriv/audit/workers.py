"""Who does the pieces of an audit: this process, or several that each get the runs and the rows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import wait as wait_for
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from statistics import fmean

from attnpriv.audit.subject import AuditOptions, Rows, Spans, Subject
from attnpriv.audit.tasks import EXACT, WHOLE, WORDS, Task, expected_passes, one_thread
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError, RunFolderError
from attnpriv.runs.folder import Run, load_run
from attnpriv.work_folder import WorkFolder

POLL = 0.1  # seconds between looks at what the processes say

StageProgress = Callable[[str, int, int], None]
Note = tuple[Task, int, int]
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
    processes: int,
    work: WorkFolder | None,
    report: StageProgress,
    stages: Collection[str] = EXACT,
) -> Iterator[Workers]:
    """Workers in this process, or in as many others; these end with the block."""
    meter = Meter(subjects, report, stages)
    if processes == 1:
        yield Workers(partial(_here, subjects, meter), meter, work)
        return
    with _processes(subjects, processes, meter) as perform:
        yield Workers(perform, meter, work)


def _here(
    subjects: Sequence[Subject], meter: Meter, tasks: Iterable[Task]
) -> Iterator[tuple[Task, bytes]]:
    for task in tasks:
        yield task, task.perform(subjects[task.subject], partial(meter.note, task))


@dataclass(frozen=True)
class _Plan:
    """What a process needs to make the same subjects; the runs are read from their folders."""

    folders: tuple[tuple[Path, dict[str, str]], ...]
    rows: tuple[Rows, ...]
    data: Dataset
    spans: Spans
    options: AuditOptions

    def subjects(self) -> list[Subject]:
        return [
            Subject(self._load(*folder), self.data, rows, self.spans, self.options)
            for folder, rows in zip(self.folders, self.rows, strict=True)
        ]

    def _load(self, path: Path, hashes: dict[str, str]) -> Run:
        run = load_run(path)
        if run.hashes != hashes:
            raise RunFolderError(f"{path} was replaced while it was audited")
        return run


@contextmanager
def _processes(subjects: Sequence[Subject], count: int, meter: Meter) -> Iterator[Perform]:
    context = multiprocessing.get_context("spawn")
    notes: SimpleQueue[Note] = context.SimpleQueue()
    first = subjects[0]
    plan = _Plan(
        tuple((subject.run.path, subject.run.hashes) for subject in subjects),
        tuple(subject.rows for subject in subjects),
        first.data,
        first.spans,
        first.options,
    )
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(count, context, initializer=_begin, initargs=(plan, notes))
    try:
        yield partial(_elsewhere, executor, notes, meter)
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # what it is at would keep us waiting
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def _elsewhere(
    executor: ProcessPoolExecutor, notes: SimpleQueue[Note], meter: Meter, tasks: Iterable[Task]
) -> Iterator[tuple[Task, bytes]]:
    waiting = {executor.submit(_perform, task): task for task in tasks}
    try:
        while waiting:
            done, _ = wait(waiting, POLL, FIRST_COMPLETED)
            while not notes.empty():
                meter.note(*notes.get())
            for future in done:
                yield waiting.pop(future), future.result()
    except BrokenProcessPool:
        raise InputError(
            "a process of the audit has ended, perhaps for want of memory: the same command with "
            "--resume and fewer --processes goes on"
        ) from None


_subjects: list[Subject] = []  # of a process that is one of several
_notes: SimpleQueue[Note]


def _begin(plan: _Plan, notes: SimpleQueue[Note]) -> None:
    """Get a new process ready. The first one decides on Ctrl-C, and takes the others with it."""
    global _notes
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _subjects.extend(plan.subjects())
    _notes = notes


def _end_with(sentinel: int) -> None:
    wait_for([sentinel])
    os._exit(1)


def _perform(task: Task) -> bytes:
    light = replace(task, answers=None)
    with one_thread():
        return task.perform(
            _subjects[task.subject], lambda done, total: _notes.put((light, done, total))
        )
