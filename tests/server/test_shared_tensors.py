"""Tensors that processes share: the same bits, in memory that nobody can change."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from attnpriv_server.shared_tensors import ALIGNMENT, SharedTensors

TENSORS = {
    "matrix": torch.randn(7, 13, generator=torch.Generator().manual_seed(0)),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "nothing": torch.empty(0, 4),
    "ids": torch.arange(5),
    "turned": torch.arange(12.0).view(3, 4).t(),
    "rounded": torch.tensor([1.0, -0.0, torch.inf, torch.nan]).bfloat16(),
}
OTHER = """
import json, sys
from attnpriv_server.shared_tensors import mapped_tensors
found = mapped_tensors(int(sys.argv[1]), json.loads(sys.argv[2]))
print(json.dumps(found["matrix"].tolist()))
"""


def bits(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    whole = tensor.contiguous()
    return whole.dtype, whole.shape, whole.flatten().view(torch.uint8).numpy().tobytes()


def test_they_are_the_same_to_the_bit_and_aligned() -> None:
    found = SharedTensors(TENSORS).tensors()  # whose object is gone by now
    assert {name: bits(each) for name, each in found.items()} == {
        name: bits(each) for name, each in TENSORS.items()
    }
    assert not any(each.data_ptr() % ALIGNMENT for each in found.values())


def test_another_process_maps_them_by_their_layout() -> None:
    shared = SharedTensors(TENSORS)
    command = [sys.executable, "-c", OTHER, str(shared.descriptor), json.dumps(shared.layout)]
    passed = (shared.descriptor,)
    found = subprocess.run(command, pass_fds=passed, capture_output=True, check=True, timeout=120)
    assert json.loads(found.stdout) == TENSORS["matrix"].tolist()


def test_who_writes_to_one_changes_it_for_nobody_else() -> None:
    shared = SharedTensors(TENSORS)
    mine, theirs = shared.tensors(), shared.tensors()
    mine["matrix"].zero_()
    assert bits(theirs["matrix"]) == bits(TENSORS["matrix"])


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="the system has no seals")
def test_the_file_can_be_neither_changed_nor_cut_short() -> None:
    shared = SharedTensors(TENSORS)
    with pytest.raises(PermissionError):
        os.pwrite(shared.descriptor, b"x", 0)
    for size in (0, 2**20):
        with pytest.raises(PermissionError):
            os.truncate(shared.descriptor, size)


def test_without_any_tensor_there_is_none() -> None:
    assert SharedTensors({}).tensors() == {}
