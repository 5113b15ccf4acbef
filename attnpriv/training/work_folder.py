"""The folder of a training that is under way: its ledger, its last saved state, its lock.

::

    .NAME.partial/                  readable by its owner only
        lock                        held while a process is at it
        checkpoint.safetensors      the saved state, and the key of the steps to come
        run/                        the run folder in the making, which moves to NAME as it is
            privacy_ledger.jsonl

Each stretch of steps is on the ledger before its first step, and each saved state comes after the
ledger entry of the steps in it, so that whatever happens, the ledger never says less than was
spent. Steps that are taken again from a saved state have the same coins and the same noise; they
release nothing that they did not release before, and spend nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attnpriv.errors import InputError
from attnpriv.identity import check_same
from attnpriv.replacing import replace_file
from attnpriv.runs.folder import LEDGER

CHECKPOINT, LOCK, RUN = "checkpoint.safetensors", "lock", "run"


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after some steps.

    Attributes:
        steps_taken: how many.
        key: of the steps to come; secret.
        tensors: the state.
    """

    steps_taken: int
    key: bytes
    tensors: dict[str, Tensor]


class WorkFolder:
    """The files of one training that is under way.

    Args:
        path: the folder.
        identity: what makes it this training and no other, as plain JSON values by name.

    Attributes:
        run: the run folder in the making; nothing secret is ever in it.
        ledger: its privacy ledger.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.run = path / RUN
        self.ledger = self.run / LEDGER
        self._checkpoint = path / CHECKPOINT
        self._identity = json.loads(json.dumps(identity))

    @property
    def has_begun(self) -> bool:
        """Whether a step may have been taken."""
        return self._checkpoint.exists() or self.ledger.exists()

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the saved state; it is on disk when the call returns."""
        state = {
            "identity": self._identity,
            "steps_taken": checkpoint.steps_taken,
            "key": checkpoint.key.hex(),
        }
        tensors = {name: tensor.contiguous() for name, tensor in checkpoint.tensors.items()}
        content = safetensors.torch.save(tensors, {"state": json.dumps(state)})
        replace_file(self._checkpoint, content, mode=0o600)

    def load(self) -> Checkpoint:
        """The saved state.

        Raises:
            InputError: it cannot be read, or is of another training; the message says what differs.
        """
        try:
            with safe_open(self._checkpoint, "pt") as file:
                state = json.loads(file.metadata()["state"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            theirs, taken = dict(state["identity"]), int(state["steps_taken"])
            key = bytes.fromhex(state["key"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"cannot read the saved state {self._checkpoint}: {error}") from error
        check_same(self.path, theirs, self._identity)
        return Checkpoint(taken, key, tensors)


def work_path(target: Path) -> Path:
    """Where the training of a run folder is kept until it is one."""
    return target.parent / f".{target.name}.partial"


def has_begun(target: Path) -> bool:
    """Whether there is an unfinished training of a run folder to go on with."""
    return WorkFolder(work_path(target), {}).has_begun


@contextmanager
def open_work_folder(
    target: Path, identity: dict[str, Any], *, resume: bool
) -> Iterator[WorkFolder]:
    """Make or reopen the work folder of a run folder, for this process alone.

    The folder vanishes when the block ends, its run folder having moved, and also with an exception
    before the first step; after that, an exception leaves it as it is.

    Raises:
        InputError: the run folder exists already; another process is training it; there is an
            unfinished training and ``resume`` is false, or none and it is true; or the folder
            cannot be written.
    """
    require_new(target)
    path = work_path(target)
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / RUN).mkdir(exist_ok=True)
        lock = (path / LOCK).open("w")
    except OSError as error:
        raise InputError(f"cannot write a run folder at {target}: {error.strerror}") from error
    with lock:
        _take(lock, target)
        work = WorkFolder(path, identity)
        if work.has_begun and not resume:
            raise InputError(
                f"an unfinished training of {target} is in {path}: "
                "go on with --resume, or remove that folder"
            )
        try:
            require_new(target)  # it may have become one before the lock was free
            if resume and not work.has_begun:
                raise InputError(f"expected an unfinished training of {target}, there is none")
            yield work
        except BaseException:
            if not work.has_begun:
                shutil.rmtree(path, ignore_errors=True)
            raise
        shutil.rmtree(path)


def require_new(target: Path) -> None:
    """Raise InputError where there is something at the path of a run folder to be made."""
    if os.path.lexists(target):  # a link to nothing too: a folder cannot take its name
        raise InputError(f"expected a new run folder, {target} exists already")


def _take(lock: IO[str], target: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its holder may have removed the folder since it was opened: such a lock locks nothing.
        is_in_place = os.path.samestat(os.fstat(lock.fileno()), Path(lock.name).stat())
    except (BlockingIOError, FileNotFoundError):
        is_in_place = False
    if not is_in_place:
        raise InputError(f"another process is training {target}")
