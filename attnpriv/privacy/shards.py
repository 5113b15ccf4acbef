"""What a process holds of a parameter, whether that is all of it or a shard.

A shard is a ``DTensor`` cut along the first dimension, as FSDP2 makes it: of a parameter of D rows
in n processes, each has ⌈D/n⌉ rows, one after the other, and the last ones fewer or none. Every
other tensor is held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor

BUNDLE = 1 << 22  # numbers that are sent together, unless a single parameter has more


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


def add_over_processes(
    parameters: Sequence[Tensor],
    totals: Sequence[Tensor],
    add: Callable[[Tensor, Tensor], None],
) -> None:
    """Add sums over whole sharded parameters, one of each process, to what each holds of them.

    All processes must do so together.

    Args:
        parameters: sharded ones.
        totals: what this process holds of each, to which its part is added.
        add: adds this process's sum for a parameter to a whole tensor.
    """
    for places in _bundles(parameters):
        mesh = cast(DTensor, parameters[places[0]]).device_mesh
        parts = []
        for place in places:
            rows, *others = parameters[place].shape
            most = -(-rows // mesh.size())
            ours = torch.zeros(most * mesh.size(), *others)
            add(parameters[place], ours[:rows])
            parts.append(ours.view(mesh.size(), -1))
        sizes = [part.shape[1] for part in parts]
        received = torch.empty(sum(sizes))
        sent = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        distributed.reduce_scatter_single(received, sent.view(-1), group=mesh.get_group())
        for place, part in zip(places, torch.split(received, sizes), strict=True):
            total = totals[place].view(-1)
            total += part[: len(total)]


def _bundles(parameters: Sequence[Tensor]) -> Iterator[list[int]]:
    """The places of parameters that are sent together, since each meeting takes its time."""
    bundle: list[int] = []
    size = 0
    for place, parameter in enumerate(parameters):
        if bundle and size + parameter.numel() > BUNDLE:
            yield bundle
            bundle, size = [], 0
        bundle.append(place)
        size += parameter.numel()
    if bundle:
        yield bundle
