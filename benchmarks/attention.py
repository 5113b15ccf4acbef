"""Time of hardened attention as a multiple of PyTorch's plain fused attention.

All contenders take turns on the same tensors in one process, and what is compared is the median of
their times. ``eager`` is what one would write without this package: matrix product, clamp, softmax,
matrix product. ``flex`` is FlexAttention with the clamp as its ``score_mod``, compiled; on a CPU it
has no backward pass. ``--busy-neighbours`` starts processes that keep as many cores busy: what is
then compared depends on how often a thread waits for another one, which may not be running.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpriv.attention import attend
from attnpriv.attention.flex import flex_attend
from attnpriv.config import AttentionConfig, ClipMode
from benchmarks.timing import medians

SHAPES = ((32, 64), (8, 256), (4, 512))  # B and T; the limits are in this order
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
HEADS, HEAD_DIM = 12, 32
CLIP, TEMPERATURE = 2.0, 2.0
MODES: tuple[ClipMode, ...] = ("norm", "clamp", "tanh", "relative")
CLIPPED = (1.5, 1.5, 1.5)
LIMITS = {"norm": (1.25, 1.10, 1.10), "clamp": CLIPPED, "tanh": CLIPPED, "relative": CLIPPED}

Contender = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    """Measure every shape, type and pass; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.attention")
    parser.add_argument("--rounds", type=int, default=25, help="times each contender runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-flex", action="store_true", help="flex takes a compiler, and a while")
    parser.add_argument("--busy-neighbours", type=int, default=0, metavar="N", help="processes")
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _busy_neighbours(arguments.busy_neighbours):
        rows = [*_rows(device, arguments)]
    name = torch.cuda.get_device_name() if device.type == "cuda" else platform.processor()
    result = {"benchmark": "attention", "device": f"{device.type} {name}".strip()}
    result |= {key: vars(arguments)[key] for key in ("threads", "busy_neighbours", "rounds")}
    held = all(row["within_limits"] for row in rows)
    print(json.dumps({**result, "held": held, "rows": rows}))


@contextmanager
def _busy_neighbours(count: int) -> Iterator[None]:
    """Other processes that compute all the time, each as much as a core can."""
    spin = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for neighbour in neighbours:
            neighbour.kill()
            neighbour.wait()


def _rows(device: torch.device, arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    for (batch, tokens), name, backward in product(SHAPES, arguments.dtypes, (False, True)):
        dtype = DTYPES[name]
        qkv = [_random(batch, tokens, dtype, device, backward) for _ in range(4)]
        contenders = _contenders(device, backward, not arguments.no_flex)
        turns = {name: partial(_seconds, each, qkv, backward) for name, each in contenders.items()}
        times = medians(turns, arguments.rounds, warm_up=2)  # they compile first
        row = _row(batch, tokens, dtype, backward, times)
        print(row, flush=True)
        yield row


def _contenders(device: torch.device, backward: bool, flex: bool) -> dict[str, Contender]:
    contenders: dict[str, Contender] = {"fused": F.scaled_dot_product_attention}
    for mode in MODES:
        contenders[mode] = partial(_ours, config=AttentionConfig(TEMPERATURE, CLIP, mode))
    contenders["eager"] = _eager_clamp
    if flex and (device.type == "cuda" or not backward):
        contenders["flex"] = _flex_clamp
    return contenders


def _ours(q: Tensor, k: Tensor, v: Tensor, config: AttentionConfig) -> Tensor:
    return attend(q, k, v, None, config)[0]


def _eager_clamp(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    logits = (q @ k.mT / math.sqrt(q.shape[-1])).clamp(-CLIP, CLIP) / TEMPERATURE
    return torch.softmax(logits, dim=-1) @ v


def _flex_clamp(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return flex_attend(q, k, v, None, AttentionConfig(TEMPERATURE, CLIP), False, TEMPERATURE)


def _random(
    batch: int, tokens: int, dtype: torch.dtype, device: torch.device, backward: bool
) -> Tensor:
    shape = (batch, HEADS, tokens, HEAD_DIM)
    return torch.randn(shape, dtype=dtype, device=device, requires_grad=backward)


def _seconds(contender: Contender, tensors: list[Tensor], backward: bool) -> float:
    q, k, v, direction = tensors
    for tensor in tensors:
        tensor.grad = None
    _synchronise(q)
    started = time.perf_counter()
    with warnings.catch_warnings(), torch.set_grad_enabled(backward):
        warnings.simplefilter("ignore")  # of compilers
        out = contender(q, k, v)
        if backward:
            out.backward(direction.detach())  # type: ignore[no-untyped-call]
    _synchronise(q)
    return time.perf_counter() - started


def _synchronise(tensor: Tensor) -> None:
    if tensor.device.type == "cuda":
        torch.cuda.synchronize()


def _row(
    batch: int, tokens: int, dtype: torch.dtype, backward: bool, times: dict[str, float]
) -> dict[str, object]:
    ratios = {name: round(seconds / times["fused"], 3) for name, seconds in times.items()}
    limits = {mode: values[SHAPES.index((batch, tokens))] for mode, values in LIMITS.items()}
    return {
        "B": batch,
        "T": tokens,
        "dtype": str(dtype).removeprefix("torch."),
        "pass": "forward and backward" if backward else "forward",
        "fused_milliseconds": round(times["fused"] * 1e3, 2),
        "ratios": ratios,
        "limits": limits,
        "within_limits": all(ratios[mode] <= limit for mode, limit in limits.items()),
    }


if __name__ == "__main__":
    main()
