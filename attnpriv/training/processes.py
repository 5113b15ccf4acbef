"""The processes that train one model together, as torchrun starts them.

All of them draw the same batch from the same key, and each computes the clipped gradients of its
share. Once a step, these are summed over the processes; then every process adds the same noise and
takes the same step, so that nothing else is ever exchanged. The processes meet once a step and
never within it, so shares of different sizes, empty ones included, need no padding.

Where they share the model too (``sharding``), each holds a part of the weights, and they meet
before and after each block and after each micro-batch. All have as many micro-batches, since all
cut the same batch, and where a share has no rows its process computes with another one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed

from attnpriv.errors import InputError

BACKEND = "gloo"  # whose name its errors have in them
PATIENCE = timedelta(minutes=30)  # for the slowest process, whose share may take long


class Processes:
    """One process alone, or one of several.

    Attributes:
        rank: number of this process; 0 is the one that writes files and speaks.
        count: how many there are.
        sharded: whether each holds only a part of the model.
    """

    rank = 0
    count = 1
    sharded = False

    def shares(self, micro_batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """This process's rows of each micro-batch of row numbers, every count-th of them.

        Shares without rows are left out, unless the processes must compute together.
        """
        for rows in micro_batches:
            share = rows[self.rank :: self.count]
            if len(share) or self.sharded:
                yield share

    def sum(self, tensors: list[Tensor]) -> None:
        """Sum tensors over the processes, in place.

        Raises:
            InputError: another process has ended.
        """

    def agree_on(self, key: bytes) -> bytes:
        """The key of rank 0."""
        return key

    def wait(self) -> None:
        """Go on when all processes have come here."""

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Computing with a model whose parts other processes may hold.

        Raises:
            InputError: another process has ended.
        """
        yield


ALONE = Processes()


class _Several(Processes):
    def __init__(self, sharded: bool) -> None:
        self.rank = distributed.get_rank()
        self.count = distributed.get_world_size()
        self.sharded = sharded

    def sum(self, tensors: list[Tensor]) -> None:
        flat = torch.cat([tensor.view(-1) for tensor in tensors])
        with _lost_process_is_an_error():
            distributed.all_reduce(flat)
        for tensor, part in zip(
            tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True
        ):
            tensor.copy_(part.view_as(tensor))

    def agree_on(self, key: bytes) -> bytes:
        shared = torch.tensor(list(key), dtype=torch.uint8)
        with _lost_process_is_an_error():
            distributed.broadcast(shared, 0)
        return bytes(shared.tolist())

    def wait(self) -> None:
        with _lost_process_is_an_error():
            distributed.barrier()

    @contextmanager
    def computing(self) -> Iterator[None]:
        with _lost_process_is_an_error(lambda error: BACKEND in str(error)):
            yield


def is_first_process() -> bool:
    """Whether this process is alone, or the one of several that speaks."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def join_processes(*, shard: bool = False) -> Iterator[Processes]:
    """This process among those that torchrun started, or alone.

    Args:
        shard: they share the model too.

    Raises:
        InputError: the environment says that there are others, and they cannot be reached; or a
            model is to be shared and there are no others.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if shard:
            raise InputError(
                "--shard shares a model among several processes, and there is one: start them with "
                "torchrun --nproc-per-node 2 -m attnpriv.cli train ..., or leave it out"
            )
        yield ALONE
        return
    try:
        distributed.init_process_group(BACKEND, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise InputError(f"cannot reach the other processes of this training: {error}") from error
    try:
        yield _Several(shard)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _lost_process_is_an_error(
    concerns: Callable[[RuntimeError], bool] = lambda error: True,
) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not concerns(error):
            raise
        raise InputError(
            "another process of this training has ended: mend what its own error says, then run "
            "the same command with --resume"
        ) from error
