"""A disk that is full: what is on it stays true, and the training goes on once there is room.

The kernel refuses to let files grow beyond a limit, as it does on a full disk.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from attnpriv.errors import InputError
from attnpriv.runs.folder import WEIGHTS
from attnpriv.training.checkpoint import CHECKPOINT, training_folder, work_path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def half_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*") if path.is_file()]


def saved_size(trainings: Any, out: Path, trainable: str, steps: int) -> int:
    """Of the state after the first stretches."""
    with pytest.raises(KeyboardInterrupt):
        trainings.run(out, trainable, interrupt_at=steps)
    return (work_path(out) / CHECKPOINT).stat().st_size


def test_no_room_for_the_first_state(trainings: Any, tmp_path: Path) -> None:
    with (
        largest_file(1000),
        pytest.raises(
            InputError,
            match="cannot write .*checkpoint.*: File too large; --resume .*if anything was",
        ),
    ):
        trainings.run(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_a_later_state(trainings: Any, uninterrupted: Any, tmp_path: Path) -> None:
    """The first one has the weights alone, the next one the optimizer's state and the average."""
    size = saved_size(trainings, tmp_path / "measured", "all", 1)
    out, taken = tmp_path / "run", []
    with largest_file(2 * size), pytest.raises(InputError, match="File too large.*--resume"):
        trainings.run(out, on_step=lambda step, *_: taken.append(step))
    assert taken == [1, 2]
    assert trainings.saved(out) == 0
    assert trainings.spent(out) == 2
    assert half_files(work_path(out)) == []
    trainings.run(out, resume=True)
    assert (out / WEIGHTS).read_bytes() == (uninterrupted() / WEIGHTS).read_bytes()


def test_no_room_for_the_weights(trainings: Any, uninterrupted: Any, tmp_path: Path) -> None:
    """A head's state is small, the whole model is not."""
    size = saved_size(trainings, tmp_path / "measured", "head", 40)
    out = tmp_path / "run"
    with largest_file(2 * size), pytest.raises(InputError, match="cannot write .*--resume"):
        trainings.run(out, "head")
    assert not out.exists()
    assert trainings.spent(out) == 40
    run = training_folder(out, {}).run
    assert not (run / WEIGHTS).exists()
    assert half_files(run) == []
    trainings.run(out, "head", resume=True)
    assert (out / WEIGHTS).read_bytes() == (uninterrupted("head") / WEIGHTS).read_bytes()


def test_the_command_says_so_in_one_line(
    trainings: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    size = saved_size(trainings, tmp_path / "measured", "head", 40)
    out = tmp_path / "run"
    full = trainings.command(out, "--trainable", "head", largest_file=2 * size)
    assert full.wait() == 2
    errors = [line for line in full.errors.splitlines() if line.strip()][2:]  # after the classes
    assert len(errors) == 1
    assert errors[0].startswith(f"error: cannot write {out}: File too large; ")
    assert "--resume" in errors[0]
    assert trainings.command(out, "--trainable", "head").wait() == 2
    again = trainings.command(out, "--trainable", "head", "--resume")
    assert again.wait() == 0, again.errors
    assert (out / WEIGHTS).read_bytes() == (uninterrupted("head") / WEIGHTS).read_bytes()


def test_no_step_is_taken_that_cannot_be_entered(trainings: Any, tmp_path: Path) -> None:
    out, taken = tmp_path / "run", []
    ledger = training_folder(out, {}).ledger

    def lose_the_ledger(step: int, *_: object) -> None:
        taken.append(step)
        if step == 2:
            ledger.rename(ledger.with_suffix(".old"))
            ledger.mkdir()

    with pytest.raises(InputError, match=f"cannot write {ledger}: Is a directory"):
        trainings.run(out, "head", on_step=lose_the_ledger)
    assert taken == [1, 2]
    ledger.rmdir()
    ledger.with_suffix(".old").rename(ledger)
    assert (trainings.spent(out), trainings.saved(out)) == (2, 2)


def test_a_run_folder_whose_place_was_taken(trainings: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def take_its_place(step: int, *_: object) -> None:
        if step == 40:
            out.mkdir()
            (out / "file").write_text("")

    with pytest.raises(InputError, match="cannot write .*: Directory not empty; --resume"):
        trainings.run(out, "head", on_step=take_its_place)
    assert [path.name for path in out.iterdir()] == ["file"]
    (out / "file").unlink()
    out.rmdir()
    trainings.run(out, "head", resume=True)
    assert (out / WEIGHTS).exists()
