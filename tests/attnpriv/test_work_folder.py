"""The folder of unfinished work: whose it is, who is at work on it, when it vanishes."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from attnpriv.errors import InputError
from attnpriv.work_folder import FORMAT, IDENTITY, LOCK, WorkFolder, hold_lock, open_work_folder

JOB = "audit in out"


def opened(
    path: Path, resume: bool | None = False, **identity: Any
) -> AbstractContextManager[WorkFolder]:
    return open_work_folder(path, {"seed": 0, **identity}, job=JOB, resume=resume)


def begin(path: Path, **identity: Any) -> None:
    """Leave an unfinished piece of work with one piece."""
    with pytest.raises(KeyboardInterrupt), opened(path, **identity) as work:
        work.write("piece", b"one")
        raise KeyboardInterrupt


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_piece_reads_back_and_its_owner_alone_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "work"
    with opened(path, options=(1, 2)) as work:
        assert work.read("piece") is None
        assert not work.has_begun
        work.write("piece", b"one")
        assert work.has_begun
        assert work.read("piece") == b"one"
        work.write("piece", b"two")
        assert work.read("piece") == b"two"
        assert path.stat().st_mode & 0o777 == 0o700
        modes = {name: (path / name).stat().st_mode & 0o777 for name in ("piece", IDENTITY)}
        assert modes == {"piece": 0o600, IDENTITY: 0o600}
        identity = json.loads((path / IDENTITY).read_bytes())
        assert identity == {"format": FORMAT, "work": {"seed": 0, "options": [1, 2]}}
    assert not path.exists()


def test_an_error_before_anything_has_begun_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "a" / "b" / "work"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt), opened(tmp_path / "mine" / "work"):
        raise KeyboardInterrupt
    assert files(tmp_path) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_error_later_leaves_all_of_it(tmp_path: Path) -> None:
    begin(tmp_path / "work")
    before = files(tmp_path)
    assert set(before) == {"work/lock", "work/identity.json", "work/piece"}
    with pytest.raises(InputError, match=f"an unfinished {JOB} is in .*work: go on .*--resume, or"):
        opened(tmp_path / "work").__enter__()
    assert files(tmp_path) == before
    with opened(tmp_path / "work", resume=True) as work:
        assert work.read("piece") == b"one"
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"expected an unfinished {JOB}, there is none"):
        opened(tmp_path / "a" / "work", resume=True).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_what_a_crash_left_before_the_first_piece_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "work"
    (path / "run").mkdir(parents=True)
    (path / LOCK).write_text("")
    (path / IDENTITY).write_text("[")  # of other work, or of an earlier version
    (path / ".piece.x2k9").write_bytes(b"half")
    with opened(path) as work:
        assert [each.name for each in path.iterdir()] == [LOCK]
        work.write("piece", b"one")
        work.check()


def test_other_work_is_refused_with_what_differs(tmp_path: Path) -> None:
    begin(tmp_path / "work", clip=0.5)
    before = files(tmp_path)
    with pytest.raises(InputError, match="work: its seed is 0, this command's is 1"):
        opened(tmp_path / "work", resume=True, clip=0.5, seed=1).__enter__()
    with pytest.raises(InputError, match="its clip is 0.5, this command's is None"):
        opened(tmp_path / "work", resume=True).__enter__()
    assert files(tmp_path) == before


UNUSABLE = {
    "none": None,
    "half of it": b'{"format": 1, "work": {"se',
    "a list": b"[1]",
    "no work": b'{"format": 1}',
    "work in words": b'{"format": 1, "work": "mine"}',
    "as an earlier version wrote it": b'{"seed": 0}',
    "of a later version": b'{"format": 2, "work": {"seed": 0}}',
    "deeper than anyone nests": b"[" * 100_000,
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_pieces_without_a_usable_identity_are_refused_and_kept(tmp_path: Path, case: str) -> None:
    begin(tmp_path / "work")
    content = UNUSABLE[case]
    if content is None:
        (tmp_path / "work" / IDENTITY).unlink()
    else:
        (tmp_path / "work" / IDENTITY).write_bytes(content)
    before = files(tmp_path)
    with pytest.raises(InputError, match="cannot resume .*work: it has no identity.json that this"):
        opened(tmp_path / "work", resume=True).__enter__()
    with pytest.raises(InputError, match="unfinished"):
        opened(tmp_path / "work").__enter__()
    assert files(tmp_path) == before


def test_going_on_where_it_fits_keeps_the_same_work_and_drops_any_other(tmp_path: Path) -> None:
    path = tmp_path / "work"
    with opened(path, resume=None) as work:
        assert not work.has_begun
    begin(path)
    with pytest.raises(KeyboardInterrupt), opened(path, resume=None) as work:
        assert work.read("piece") == b"one"
        raise KeyboardInterrupt
    with opened(path, resume=None, seed=1) as work:
        assert work.read("piece") is None
        assert [each.name for each in path.iterdir()] == [LOCK]


@pytest.mark.parametrize("place", ["file/work", "file"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=f"cannot write .*{place}: (Not a directory|File exists)"):
        opened(tmp_path / place).__enter__()
    assert files(tmp_path) == {"file": b"mine"}


def test_a_piece_that_cannot_be_written_or_read_is_an_error_with_its_name(tmp_path: Path) -> None:
    with opened(tmp_path / "work") as work:
        (work.path / "piece").mkdir()
        with pytest.raises(InputError, match="cannot write .*work/piece: Is a directory; --resume"):
            work.write("piece", b"one")
        with pytest.raises(InputError, match="cannot read .*work/piece: Is a directory"):
            work.read("piece")


def hold(path: Path, pipe: Connection) -> None:
    with opened(path) as work:
        work.write("piece", b"one")
        pipe.send("held")
        signal.pause()


def test_another_process_is_kept_out_until_this_one_ends(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "work", theirs))
    process.start()
    assert ours.recv() == "held"
    before = files(tmp_path)
    for resume in (False, True, None):
        with pytest.raises(InputError, match=f"another process is at work on the {JOB}"):
            opened(tmp_path / "work", resume=resume).__enter__()
    assert files(tmp_path) == before
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with opened(tmp_path / "work", resume=True) as work:  # the lock died with its holder
        assert work.read("piece") == b"one"


def test_a_lock_is_worth_nothing_once_its_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process ends, and removes the folder, between opening the lock and taking it."""
    flock = fcntl.flock

    def too_late(lock: Any, operation: int) -> None:
        shutil.rmtree(tmp_path / "work")
        flock(lock, operation)

    monkeypatch.setattr(fcntl, "flock", too_late)
    with pytest.raises(InputError, match="another process is at work"):
        opened(tmp_path / "work").__enter__()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_alone_keeps_others_out_of_any_folder(tmp_path: Path) -> None:
    with hold_lock(tmp_path, "study"):
        refused = pytest.raises(InputError, match="another process is at work on the study")
        with refused, hold_lock(tmp_path, "study"):
            pass
    with hold_lock(tmp_path, "study"):
        pass
    with pytest.raises(InputError, match="cannot write .*nowhere/lock: No such file"):
        hold_lock(tmp_path / "nowhere", "study").__enter__()
