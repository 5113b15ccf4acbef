"""What a training keeps while it is under way: its ledger and its last saved state.

::

    .NAME.partial/                  as in ``attnpriv.work_folder``
        checkpoint.safetensors      the saved state, and the key of the steps to come
        run/                        the run folder in the making, which moves to NAME as it is
            privacy_ledger.jsonl

Each stretch of steps is on the ledger before its first step, and each saved state comes after the
ledger entry of the steps in it, so that whatever happens, the ledger never says less than was
spent. Steps that are taken again from a saved state have the same coins and the same noise; they
release nothing that they did not release before, and spend nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from attnpriv.errors import InputError
from attnpriv.privacy.shards import rows_of, whole
from attnpriv.runs.folder import LEDGER
from attnpriv.training.processes import ALONE, Processes
from attnpriv.work_folder import WorkFolder, open_work_folder

CHECKPOINT, RUN = "checkpoint.safetensors", "run"
DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64", torch.uint8: "U8"}
State = TypeVar("State")


@dataclass(frozen=True)
class Checkpoint:
    """A training's state after some steps.

    Attributes:
        steps_taken: number of steps taken.
        key: the secret key of the steps to come.
        tensors: everything that steps change, by name; of sharded tensors a process has its shards.
    """

    steps_taken: int
    key: bytes
    tensors: dict[str, Tensor]

    @property
    def canary_key(self) -> bytes | None:
        """The secret key of the canaries, where there are any."""
        key = self.tensors.get("canaries.key")
        return None if key is None else bytes(key.tolist())


class TrainingFolder:
    """The files of one training that is under way.

    Args:
        work: the folder.

    Attributes:
        run: the run folder in the making; nothing secret is ever in it.
        ledger: its privacy ledger.
    """

    def __init__(self, work: WorkFolder) -> None:
        self.run = work.path / RUN
        self.ledger = self.run / LEDGER
        self._work = work

    def save(self, checkpoint: Checkpoint, processes: Processes = ALONE) -> None:
        """Replace the saved state; it is on disk when the call returns in the first process.

        The file is the same whether tensors are sharded or not. The others help to put sharded ones
        together, one at a time, so that no process ever needs memory for all of them.
        """
        state = {"steps_taken": checkpoint.steps_taken, "key": checkpoint.key.hex()}
        with processes.computing():
            if processes.rank == 0:
                self._work.write(CHECKPOINT, state_content(state, checkpoint.tensors))
            elif processes.sharded:
                for tensor in checkpoint.tensors.values():
                    whole(tensor)

    def load(self, processes: Processes = ALONE) -> Checkpoint:
        """The saved state, and where the model is sharded this process's part of it.

        Raises:
            InputError: it cannot be read, or is of another training; the message says what differs.
        """
        self._work.check()
        return load_state(
            self._work.path / CHECKPOINT,
            lambda state, tensors: Checkpoint(
                int(state["steps_taken"]), bytes.fromhex(state["key"]), tensors
            ),
            partial(_shard_of, processes=processes) if processes.sharded else None,
        )


def state_content(state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Iterator[bytes]:
    """What a file of saved state holds: JSON values and tensors, by name.

    It is in the format of safetensors, whose own writer would need a second copy of all tensors.
    """
    header: dict[str, Any] = {"__metadata__": {"state": json.dumps(state)}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.itemsize
        header[name] = {
            "dtype": DTYPES[tensor.dtype],
            "shape": [*tensor.shape],
            "data_offsets": [begin, end],
        }
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)  # the tensors begin at a multiple of 8
    yield len(content).to_bytes(8, "little") + content
    for tensor in tensors.values():
        yield whole(tensor.detach()).contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def load_state(
    path: Path,
    made: Callable[[dict[str, Any], dict[str, Tensor]], State],
    read: Callable[[Any, str], Tensor] | None = None,
) -> State:
    """What can be made of a file that holds ``state_content``.

    Args:
        path: the file.
        made: makes it of the JSON values and the tensors; what it misses there makes the file one
            that cannot be read.
        read: reads what is wanted of one tensor from the open file; by default all of it.

    Raises:
        InputError: the file cannot be read.
    """
    read = read or safe_open.get_tensor
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
            # The file is no mapping: it has keys, and cannot be iterated over.
            tensors = {name: read(file, name) for name in file.keys()}  # noqa: SIM118
        return made(state, tensors)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the saved state {path}: {error}") from error


def work_path(target: Path) -> Path:
    """Where the training of a run folder is kept until it is one."""
    return target.parent / f".{target.name}.partial"


def has_begun(target: Path) -> bool:
    """Whether there is an unfinished training of a run folder to go on with."""
    return WorkFolder(work_path(target), {}).has_begun


def training_folder(target: Path, identity: dict[str, Any]) -> TrainingFolder:
    """The files of the training of a run folder, for a process that does not hold its lock."""
    return TrainingFolder(WorkFolder(work_path(target), identity))


@contextmanager
def open_training_folder(
    target: Path, identity: dict[str, Any], *, resume: bool
) -> Iterator[TrainingFolder]:
    """Make or reopen the files of the training of a run folder, for this process alone.

    They vanish when the block ends, the run folder having moved, and also with an exception before
    the first step; after that, an exception leaves them as they are.

    Raises:
        InputError: the run folder exists already; or as ``work_folder.open_work_folder``.
    """
    require_new(target)
    job = f"training of {target}"
    with open_work_folder(work_path(target), identity, job=job, resume=resume) as work:
        require_new(target)  # it may have become one before the lock was free
        folder = TrainingFolder(work)
        folder.run.mkdir(exist_ok=True)
        yield folder


def require_new(target: Path, what: str = "run folder") -> None:
    """Raise InputError where there is something at the path of a folder to be made."""
    if os.path.lexists(target):  # a link to nothing too: a folder cannot take its name
        raise InputError(f"expected a new {what}, {target} exists already")


def _shard_of(file: Any, name: str, processes: Processes) -> Tensor:
    rows = file.get_slice(name)
    shape = rows.get_shape()
    if not shape or name.startswith("canaries."):
        return cast(Tensor, file.get_tensor(name))
    return cast(Tensor, rows[rows_of(shape[0], processes.rank, processes.count)])
