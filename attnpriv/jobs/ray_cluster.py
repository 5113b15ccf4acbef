"""The processes of a Ray cluster, on one machine or many."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from attnpriv.errors import AttnprivError, InputError
from attnpriv.jobs.executor import POLL, Crew, Job, Note, Piece, Told

RETRIES = 3  # of a piece whose process or machine died
PREFIX = "ray://"


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster: the one at an address, or else one that this machine is part of.

    Each piece takes one processor and is done again, up to three times, where its process or its
    machine dies. Every machine needs this version of attnpriv, and none needs this one's files.

    Attributes:
        address: ``ray://HOST:PORT`` of a Ray client server. None: what ``RAY_ADDRESS`` says, or a
            cluster that runs on this machine, or one that is started for the job alone.

    Not covered: Ray sends what a job needs, the private data included, to every machine, in the
    clear unless it is told otherwise (``RAY_USE_TLS``), and keeps it in their memory and, when that
    is short, on their disks. So whoever runs the cluster must be trusted with the data. Processors
    of different kinds may round differently.
    """

    address: str | None = None

    def __post_init__(self) -> None:
        if self.address is not None and not self.address.startswith(PREFIX):
            raise InputError(
                f"expected a Ray cluster as ray or ray://HOST:PORT, got {self.address!r}"
            )

    @contextmanager
    def crew(self, job: Job[Piece]) -> Iterator[Crew[Piece]]:
        """As ``Executor.crew``."""
        with _connected(self.address) as ray:
            packed = _Packed(uuid4().hex, version("attnpriv"), ray.put(job.packed()))
            yield partial(_have_done, ray, packed, job.resumable)


@dataclass(frozen=True)
class _Packed:
    """A job as its pieces get it.

    Attributes:
        key: its own.
        version: of the attnpriv that made it.
        job: where Ray keeps it.
    """

    key: str
    version: str
    job: Any


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports to its makers otherwise
    try:
        import ray
    except ImportError:
        raise InputError("Ray is missing: pip install 'attnpriv[ray]'") from None
    try:
        with warnings.catch_warnings(action="ignore"):  # what fails is said below
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        asked = address or os.environ.get("RAY_ADDRESS", "this machine")
        raise InputError(f"expected a Ray cluster at {asked}: {_first_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _have_done(
    ray: Any, packed: _Packed, resumable: bool, pieces: Iterable[Piece], note: Note[Piece]
) -> Iterator[tuple[Piece, bytes]]:
    notes = _notes_beside_me(ray)
    remote = ray.remote(_do).options(num_cpus=1, max_retries=RETRIES)
    known = list(pieces)  # notes name them by number, since a piece may be large
    waiting = {remote.remote(packed, n, piece, notes): piece for n, piece in enumerate(known)}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=POLL)
            for number, (done_of_it, total) in _said(ray, notes).items():
                note(known[number], done_of_it, total)
            for reference in done:
                yield waiting.pop(reference), _result(ray, reference, resumable)
    finally:
        for reference in waiting:
            ray.cancel(reference, force=True)
        ray.kill(notes)


def _said(ray: Any, notes: Any) -> dict[int, tuple[int, int]]:
    """How far pieces are; nothing once the actor is lost, which no result depends on."""
    try:
        found: dict[int, tuple[int, int]] = ray.get(notes.taken.remote())
    except ray.exceptions.RayActorError:
        return {}
    return found


def _result(ray: Any, reference: Any, resumable: bool) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AttnprivError):
            raise error.cause from None  # what the piece raised, without Ray's account of where
        if isinstance(error.cause, ray.exceptions.RaySystemError):
            raise _unreadable() from None
        raise
    except ray.exceptions.RaySystemError:
        raise _unreadable() from None
    except (ray.exceptions.RayError, ConnectionError) as error:
        way = "with --resume goes on" if resumable else "begins anew"
        raise InputError(
            f"Ray has lost a piece of the work {RETRIES + 1} times ({type(error).__name__}), "
            f"perhaps for want of memory: the same command {way}"
        ) from None


def _unreadable() -> InputError:
    return InputError(
        f"a machine of the Ray cluster cannot read the work: expected attnpriv "
        f"{version('attnpriv')} on each"
    )


def _notes_beside_me(ray: Any) -> Any:
    """An actor that collects notes, on the machine that waits for them: it lives as long as we."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    return ray.remote(_Notes).options(num_cpus=0, scheduling_strategy=here).remote()


class _Notes:
    """What processes say about their pieces, until somebody asks; of each piece the last."""

    def __init__(self) -> None:
        self._said: dict[int, tuple[int, int]] = {}

    def say(self, number: int, done: int, total: int) -> None:
        self._said[number] = done, total

    def taken(self) -> dict[int, tuple[int, int]]:
        said, self._said = self._said, {}
        return said


_begun: dict[str, Callable[[Any, Told], bytes]] = {}  # in a worker process, by key: one job


def _do(packed: _Packed, number: int, piece: Any, notes: Any) -> bytes:
    return _piece(packed)(piece, lambda done, total: notes.say.remote(number, done, total))


def _piece(packed: _Packed) -> Callable[[Any, Told], bytes]:
    if packed.key not in _begun:
        import ray

        if (here := version("attnpriv")) != packed.version:
            raise InputError(
                f"expected attnpriv {packed.version} on every machine of the cluster, got {here}"
            )
        _begun.clear()
        _begun[packed.key] = ray.get(packed.job).begin()
    return _begun[packed.key]
