"""What a process holds of a parameter, whether that is all of it or a shard.

A shard is a ``DTensor`` cut along the first dimension, as FSDP2 makes it: of a parameter of D rows
in n processes, each has ⌈D/n⌉ rows, one after the other, and the last ones fewer or none. Every
other tensor is held whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from attnpriv.privacy.clipping.gradients import RecordGradients


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold the rest of a tensor."""
    return isinstance(tensor, DTensor)


@torch.no_grad()
def held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: an ordinary one, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; where it is sharded, all its processes must ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def start_of(parameter: Tensor) -> int:
    """The place of the first number that this process holds among all of the parameter's."""
    if not isinstance(parameter, DTensor):
        return 0
    mesh = parameter.device_mesh
    rows = rows_of(len(parameter), mesh.get_local_rank(), mesh.size())
    return int(rows.start) * (parameter.numel() // max(1, len(parameter)))


def rows_of(length: int, rank: int, count: int) -> slice:
    """The rows of a tensor of ``length`` rows that one of ``count`` processes holds."""
    most = -(-length // count)
    return slice(min(length, rank * most), min(length, (rank + 1) * most))


def like(parameter: Tensor, part: Tensor) -> Tensor:
    """A part as long as what is held of a parameter, as a tensor that is sharded as that is."""
    if not isinstance(parameter, DTensor):
        return part
    return DTensor.from_local(
        part,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )


def add_clipped(
    parameter: Tensor, total: Tensor, gradients: RecordGradients | None, factors: Tensor
) -> None:
    """Add the records' gradients by a parameter, each times its factor [R], to what is held.

    Where the parameter is sharded, its processes do so together, each with its own records: their
    sums are added, and each process gets its part of that. None stands for no records.
    """
    if not isinstance(parameter, DTensor):
        if gradients is not None:
            gradients.add_to(total, factors)
        return
    mesh = parameter.device_mesh
    rows, *others = parameter.shape
    most = -(-rows // mesh.size())
    ours = torch.zeros(most * mesh.size(), *others)
    if gradients is not None:
        gradients.add_to(ours[:rows], factors)
    part = torch.empty(most, *others)
    distributed.reduce_scatter_single(part, ours, group=mesh.get_group())
    total += part[: len(total)]
