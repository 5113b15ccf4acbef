"""The folder of work that can stop and go on: whose work it is, its lock, its finished pieces.

::

    FOLDER/                 readable by its owner only
        lock                held by the process that is at work on it
        identity.json       which work this is; complete before the first piece is there
        NAME                a piece, complete or not there

A training keeps its saved state here, an audit what it has measured. What else they keep in the
folder, such as the ledger of a training, is theirs to write safely.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attnpriv.errors import InputError
from attnpriv.replacing import replace_file

LOCK, IDENTITY = "lock", "identity.json"
FORMAT = 1  # of identity.json; a folder with another one, or none, is of another version


class WorkFolder:
    """The files of one piece of work.

    Args:
        path: the folder.
        identity: what makes it this work and no other, as JSON values by name.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to go on with.

        An identity alone is nothing yet, and neither are the halves of files that a crash leaves,
        whose names begin with a dot.
        """
        own = (self.path / LOCK, self.path / IDENTITY)
        return any(
            path not in own and not path.name.startswith(".") and not path.is_dir()
            for path in self.path.rglob("*")
        )

    def read(self, name: str) -> bytes | None:
        """A finished piece, if it is there.

        Raises:
            InputError: it is there and cannot be read.
        """
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"cannot read {self.path / name}: {error.strerror}") from error

    def write(self, name: str, content: bytes | Iterable[bytes]) -> None:
        """Keep a finished piece; it is on disk when the call returns.

        Args:
            name: of the piece.
            content: as in ``replace_file``.

        Raises:
            InputError: it cannot be written; what was there before is as it was.
        """
        try:
            if not (self.path / IDENTITY).exists():
                identity = {"format": FORMAT, "work": self._identity}
                replace_file(self.path / IDENTITY, json.dumps(identity).encode(), mode=0o600)
            replace_file(self.path / name, content, mode=0o600)
        except OSError as error:
            raise InputError(
                f"cannot write {self.path / name}: {error.strerror}; "
                "--resume goes on from what was saved before, if anything was"
            ) from error

    def kept_identity(self) -> dict[str, Any] | None:
        """What the work in the folder is, as it was begun; None if that cannot be read."""
        try:
            content = json.loads((self.path / IDENTITY).read_bytes())
            return dict(content["work"]) if content["format"] == FORMAT else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def check(self) -> None:
        """Raise InputError where the pieces are of other work; the message says what differs."""
        theirs = self.kept_identity()
        if theirs is None:
            raise InputError(
                f"cannot resume {self.path}: it has no {IDENTITY} that this version of attnpriv "
                "can read; go on with the version that began it, or remove that folder"
            )
        check_same(self.path, theirs, self._identity)

    def clear(self) -> None:
        """Remove all but the lock."""
        for path in self.path.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def check_same(path: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raise InputError at the first name whose values differ; the message says both."""
    for name in {**theirs, **ours}:
        if theirs.get(name) != ours.get(name):
            raise InputError(
                f"cannot resume {path}: its {name} is {theirs.get(name)!r}, "
                f"this command's is {ours.get(name)!r}"
            )


@contextmanager
def open_work_folder(
    path: Path, identity: Mapping[str, Any], *, job: str, resume: bool | None
) -> Iterator[WorkFolder]:
    """Make or reopen the folder of some work, for this process alone.

    The folder vanishes when the block ends. Where an exception ends the block, it vanishes only if
    nothing has begun, and with it the folders above it that were made for it; else it stays as it
    is.

    Args:
        path: the folder.
        identity: as in ``WorkFolder``.
        job: what the work is, for messages, such as ``training of runs/spam``.
        resume: True goes on with unfinished work, which must be there and be the same; False begins
            anew, and there must be none; None goes on where there is the same work, and removes
            what there is of any other.

    Raises:
        InputError: as under ``resume``; another process is at work on it; or the folder cannot be
            written or, in the end, removed.
    """
    work = WorkFolder(path, identity)
    made = [folder for folder in path.parents if not folder.exists()]
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    with hold_lock(path, job):
        try:
            _take_up(work, job, resume)
            yield work
        except BaseException:
            if not work.has_begun:
                shutil.rmtree(path, ignore_errors=True)
                _remove_empty(made)
            raise
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise InputError(
                f"the {job} is finished, but {path} cannot be removed: {error.strerror}; "
                "remove it by hand"
            ) from error


@contextmanager
def hold_lock(folder: Path, job: str) -> Iterator[None]:
    """Keep other processes out of a folder while the block lasts, by a lock on a file in it.

    The lock ends with the process that holds it, however that ends. The file stays.

    Raises:
        InputError: another process holds it, or the file cannot be written.
    """
    path = folder / LOCK
    try:
        file = path.open("w")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its holder may have removed the file since it was opened: such a lock locks nothing.
            is_in_place = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except (BlockingIOError, FileNotFoundError):
            is_in_place = False
        if not is_in_place:
            raise InputError(f"another process is at work on the {job}: wait for it, or stop it")
        yield


def _take_up(work: WorkFolder, job: str, resume: bool | None) -> None:
    """Leave in the folder what this command goes on with, or nothing."""
    if not work.has_begun:
        if resume:
            raise InputError(f"expected an unfinished {job}, there is none")
        work.clear()
    elif resume:
        work.check()
    elif resume is None:
        try:
            work.check()
        except InputError:
            work.clear()
    else:
        raise InputError(
            f"an unfinished {job} is in {work.path}: go on with --resume, or remove that folder"
        )


def _remove_empty(folders: list[Path]) -> None:
    with suppress(OSError):  # something has come into one meanwhile
        for folder in folders:
            folder.rmdir()
