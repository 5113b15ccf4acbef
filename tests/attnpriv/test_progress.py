"""Long work shows how far it is, also where nobody watches a terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from rich.progress import Progress

from attnpriv.progress import progress_bars


def written(capsys: pytest.CaptureFixture[str], work: Callable[[Progress], object]) -> list[str]:
    """The lines on stderr after some work, once there is one or two seconds are over."""
    shown, end = "", time.monotonic() + 2
    with progress_bars(every=0.01) as progress:
        work(progress)
        while "\n" not in shown and time.monotonic() < end:
            time.sleep(0.01)
            shown += capsys.readouterr().err
        time.sleep(0.05)
    printed = capsys.readouterr()
    assert printed.out == ""
    return (shown + printed.err).splitlines()


def test_a_log_gets_a_line_for_what_has_moved_and_only_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(progress: Progress) -> None:
        progress.update(progress.add_task("training", total=8), completed=2)

    assert written(capsys, work) == ["training: 25 %"]


def test_the_time_that_is_left_is_said_once_it_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    def work(progress: Progress) -> None:
        task = progress.add_task("training", total=1_000_000)
        for _ in range(3):
            time.sleep(0.002)
            progress.advance(task, 100_000)

    assert re.fullmatch(r"training: 30 %; about \d+ (s|min) left", written(capsys, work)[-1])


def test_work_of_unknown_size_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert written(capsys, lambda progress: progress.add_task("3 lines", total=None)) == ["3 lines"]


def test_finished_and_short_work_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        progress.update(progress.add_task("training", total=8), completed=2)
    with progress_bars(every=0.01) as progress:
        progress.update(progress.add_task("training", total=8), completed=8)
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
