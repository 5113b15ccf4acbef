"""How commands show how far they are: bars in a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from attnpriv.command import complain

EVERY = 30.0  # seconds; shorter work writes no line to a log


@contextmanager
def progress_bars(
    count: ProgressColumn | None = None, every: float | None = None
) -> Iterator[Progress]:
    """Progress on stderr; stdout is for results.

    Where stderr is no terminal, as in a CI job or a container, a line for each task that has moved
    is written from time to time. Bars would leave nothing but an empty line there.

    Args:
        count: what stands after a bar; None shows how many are done, of how many.
        every: seconds between two such lines; None takes ``EVERY``.
    """
    console = Console(stderr=True, markup=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        count or MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    seen = console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not seen) as progress:
        if seen:
            yield progress
        else:
            with _lines(progress, EVERY if every is None else every):
                yield progress


@contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage: call with its name, what is done and the total."""
    with progress_bars() as progress:
        tasks: dict[str, TaskID] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield on_stage


@contextmanager
def _lines(progress: Progress, every: float) -> Iterator[None]:
    ended = Event()
    thread = Thread(target=_write, args=(progress, every, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _write(progress: Progress, every: float, ended: Event) -> None:
    said: dict[TaskID, str] = {}
    while not ended.wait(every):
        for task in progress.tasks:
            line = _line(task)
            if said.get(task.id) != line and not task.finished:
                said[task.id] = line
                left = task.time_remaining
                complain(line, [] if left is None else [f"about {_duration(left)} left"])


def _line(task: Task) -> str:
    return task.description + ("" if task.total is None else f": {task.percentage:.0f} %")


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
