"""Weights in memory that several processes map, so that they take it once."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor

ALIGNMENT = 64  # bytes; what PyTorch gives its own tensors, and what the bits of products depend on

Layout = dict[str, tuple[str, list[int], int]]
"""By name: the dtype, the shape, and the first byte."""


class SharedTensors:
    """Copies of tensors in a file that has no name and is in memory alone.

    Not the file of a run folder: whoever cut that one short would bring down every process that
    maps it. Where the system has seals, nobody can change or shorten this one, a process that was
    taken over included.

    Args:
        tensors: by name, on the CPU.

    Attributes:
        layout: says where each tensor is; it fits into JSON.
        descriptor: of the file; it is closed with this object.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.layout: Layout = {}
        size = 0
        for name, tensor in tensors.items():
            dtype = str(tensor.dtype).removeprefix("torch.")
            self.layout[name] = dtype, list(tensor.shape), size
            size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.descriptor = _nameless()
        finalize(self, os.close, self.descriptor)
        os.truncate(self.descriptor, max(size, 1))
        for name, tensor in tensors.items():
            flat = tensor.detach().contiguous().flatten()
            _write(self.descriptor, flat.view(torch.uint8).numpy().data, self.layout[name][2])
        _seal(self.descriptor)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors as this process maps them; see ``mapped_tensors``."""
        return mapped_tensors(self.descriptor, self.layout)


def mapped_tensors(descriptor: int, layout: Mapping[str, Any]) -> dict[str, Tensor]:
    """Tensors of ``SharedTensors`` in another process, or in the same.

    They stay when the descriptor is closed. Whoever writes to one gets a page of their own.

    Args:
        descriptor: of the file.
        layout: as there.
    """
    # A private copy, since PyTorch warns of memory that cannot be written to.
    memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)
    found = {}
    for name, (dtype, shape, start) in layout.items():
        count = torch.Size(shape).numel()
        kind = getattr(torch, dtype)
        flat = torch.frombuffer(memory, dtype=kind, count=count, offset=start) if count else None
        found[name] = torch.empty(shape, dtype=kind) if flat is None else flat.view(shape)
    return found


def _nameless() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("attnpriv-weights", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    descriptor, path = tempfile.mkstemp()
    Path(path).unlink()
    return descriptor


def _seal(descriptor: int) -> None:
    with suppress(ImportError):
        from fcntl import (
            F_ADD_SEALS,
            F_SEAL_GROW,
            F_SEAL_SEAL,
            F_SEAL_SHRINK,
            F_SEAL_WRITE,
            fcntl,
        )

        fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)


def _write(descriptor: int, content: memoryview, start: int) -> None:
    while content:
        written = os.pwrite(descriptor, content, start)
        content, start = content[written:], start + written
