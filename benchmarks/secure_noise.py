"""Time of noise from our ChaCha20 stream as a multiple of torch's and NumPy's Gaussian noise.

Every contender adds N(0, 1) noise to the same tensor. ``normal_`` fills a buffer that exists,
``torch.normal`` makes a new one, as Opacus does; both draw from a Mersenne twister. ``sfc64`` is
NumPy's fastest generator with its own float32 normals, and ``stream_on_sfc64`` is our arithmetic on
SFC64's bits instead of ChaCha20's: what a source that is not secure would save.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from attnpriv.randomness import StepKeys, Stream
from benchmarks.timing import medians, timed

SIZES = (10**5, 10**6, 10**7)
LIMIT = 2.0  # of our stream to torch's normal_

Contender = Callable[[], object]


class _StreamOnSfc64(Stream):
    """Our stream with its bits taken from elsewhere."""

    def __init__(self) -> None:
        self._bits = np.random.SFC64(0)

    def _keystream(self, size: int) -> bytes:
        return memoryview(self._bits.random_raw(-(-size // 8))).cast("B")[:size]  # type: ignore[arg-type, return-value]


def main() -> None:
    """Measure every size; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.secure_noise")
    parser.add_argument("--rounds", type=int, default=15, help="times each contender runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for size in SIZES:
        turns = {name: timed(each) for name, each in _contenders(size).items()}
        rows.append(_row(size, medians(turns, arguments.rounds)))
        print(rows[-1], flush=True)
    result = {"benchmark": "secure_noise", "device": f"cpu {platform.processor()}".strip()}
    held = all(row["within_limit"] for row in rows)
    print(json.dumps({**result, "threads": arguments.threads, "held": held, "rows": rows}))


def _contenders(size: int) -> dict[str, Contender]:
    out, buffer = torch.zeros(size), torch.empty(size)
    generator = torch.Generator().manual_seed(0)
    stream, on_sfc64 = Stream(StepKeys.from_seed(0).key), _StreamOnSfc64()
    numpy_normals = np.random.Generator(np.random.SFC64(0))

    def sfc64() -> Tensor:
        numpy_normals.standard_normal(out=buffer.numpy(), dtype=np.float32)
        return out.add_(buffer)

    return {
        "normal_": lambda: out.add_(buffer.normal_(generator=generator)),
        "torch.normal": lambda: out.add_(torch.normal(0.0, 1.0, (size,), generator=generator)),
        "stream": lambda: stream.add_normal_(out, 1.0),
        "stream_on_sfc64": lambda: on_sfc64.add_normal_(out, 1.0),
        "sfc64": sfc64,
    }


def _row(size: int, times: dict[str, float]) -> dict[str, object]:
    return {
        "parameters": size,
        "nanoseconds_each": {name: round(t / size * 1e9, 2) for name, t in times.items()},
        "to_normal_": {name: round(t / times["normal_"], 3) for name, t in times.items()},
        "to_torch.normal": {name: round(t / times["torch.normal"], 3) for name, t in times.items()},
        "within_limit": times["stream"] <= LIMIT * times["normal_"],
    }


if __name__ == "__main__":
    main()
