"""``minilm-bounded``, the copy of ``minilm`` that was taught to do with bounded attention.

It is shipped as the difference of its weights to those of ``minilm``, which a package of its own
carries.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnpriv.attention.bound import ENTRY, Bound
from attnpriv.errors import InputError

DIFFERENCE, RECORD = "minilm_bounded.npz", "minilm_bounded.json"
FOLDER = resources.files("attnpriv.models")
STEPS = ".step"  # what is added to the name of a tensor for the size of one of its levels


def shipped_bound() -> Bound:
    """How ``minilm-bounded`` is bounded."""
    bound = Bound.from_config({ENTRY: _record()})
    assert bound is not None
    return bound


def shipped() -> tuple[Bound, dict[str, Tensor]]:
    """How ``minilm-bounded`` is bounded, and what is to be added to each weight of ``minilm``.

    Raises:
        InputError: the file with the weights is not the one that belongs to this version.
    """
    content = (FOLDER / DIFFERENCE).read_bytes()
    bound, digest = shipped_bound(), hashlib.sha256(content).hexdigest()
    expected = bound.provenance["difference_sha256"]
    if digest != expected:
        raise InputError(
            f"expected {DIFFERENCE} with sha256 {expected}, got {digest}: install attnpriv again"
        )
    return bound, unpack(content)


def _record() -> Any:
    return json.loads((FOLDER / RECORD).read_text(encoding="utf-8"))


def pack(difference: Mapping[str, Tensor], step: float) -> bytes:
    """Numbers that are added to weights, in few bits: the content of an ``.npz`` file.

    The numbers of a matrix become whole multiples of one step. Small multiples are by far the most
    frequent, which the file's compression makes use of. Vectors are kept in float16.

    Args:
        difference: by the name of the weight.
        step: the size of a step over the root mean square of the matrix, 0.4 for example.
    """
    arrays: dict[str, Any] = {}
    for name, tensor in sorted(difference.items()):
        numbers = tensor.float().numpy()
        if numbers.ndim < 2:
            arrays[name] = numbers.astype(np.float16)
            continue
        size = max(float(np.sqrt((numbers**2).mean())) * step, np.abs(numbers).max() / 127, 1e-12)
        arrays[name] = np.round(numbers / size).astype(np.int8)
        arrays[name + STEPS] = np.float32(size)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            # A fixed date: the same weights make the same bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_LZMA)
    return file.getvalue()


def unpack(content: bytes) -> dict[str, Tensor]:
    """The inverse of ``pack``, in float32, up to what it rounded away."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {
            name: torch.from_numpy(
                arrays[name].astype(np.float32) * arrays.get(name + STEPS, np.float32(1))
            )
            for name in arrays.files
            if not name.endswith(STEPS)
        }
