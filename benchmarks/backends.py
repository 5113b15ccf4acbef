"""Texts a second of the server's backends, on a classifier of MiniLM's shape with random weights.

The contenders take turns on the same batches. ``compiled`` ones are what ``torch.compile`` makes of
the same computation for any batch size and length, which takes a compiler and minutes. With a clip
it gives up after 8 kinds of shape and runs further ones uncompiled, as it would in a server.

One thread is timed by the processor time of this process, so that what else runs on the core
counts less; several by the clock. The time of a batch is fitted by ``a + b·tokens``, and ``a/b``
printed as ``fixed_tokens``: the padded tokens that a forward pass costs before its first.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from attnpriv.attention.scores import has_native_bfloat16
from attnpriv.config import AttentionConfig, ClipMode, ModelConfig
from attnpriv.models.text import TextClassifier
from attnpriv_server.backend import EagerBackend
from benchmarks.timing import medians, timed

SHAPES = ((1, 8), (1, 32), (2, 32), (8, 32), (16, 32), (32, 32))  # B and T
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

Contender = Callable[[Tensor, Tensor], object]


def main() -> None:
    """Measure every shape; print a line for each and JSON at the end."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    attention = AttentionConfig(arguments.temperature, arguments.clip, arguments.clip_mode)
    contenders = _contenders(minilm_shaped(attention), not arguments.no_compile)
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    rows = []
    for batch, tokens in SHAPES:
        texts = random_texts(batch, tokens)
        turns = {name: timed(partial(each, *texts), clock) for name, each in contenders.items()}
        times = medians(turns, arguments.rounds, warm_up=2)  # they compile first
        rows.append(_row(batch, tokens, times))
        print(rows[-1], flush=True)
    result = {
        "benchmark": "backends",
        "device": f"cpu {platform.processor()}".strip(),
        "native_bfloat16": has_native_bfloat16(),
        "threads": arguments.threads,
        "clip": attention.clip,
        "clip_mode": attention.clip_mode,
        "fixed_tokens": {name: _fixed_tokens(rows, name) for name in contenders},
    }
    print(json.dumps({**result, "rows": rows}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.backends")
    parser.add_argument("--rounds", type=int, default=11, help="times each contender runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clip", type=float, help="default: attention is not hardened")
    parser.add_argument("--clip-mode", choices=get_args(ClipMode), default="clamp")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--no-compile", action="store_true", help="only what the server offers")
    return parser


def minilm_shaped(attention: AttentionConfig) -> TextClassifier:
    """A classifier of MiniLM's shape with random weights, none of which is trained."""
    config = ModelConfig(
        encoder="scratch",
        vocab_size=30522,
        dim=384,
        layers=6,
        heads=12,
        hidden_dim=1536,
        max_length=256,
        num_labels=2,
        pooling="layers",
        attention=attention,
    )
    model = TextClassifier(config)
    nn.init.normal_(model.head.weight)
    return model.requires_grad_(False).eval()


def _contenders(model: TextClassifier, compiled: bool) -> dict[str, Contender]:
    backends = {name: EagerBackend(model, dtype) for name, dtype in DTYPES.items()}
    contenders: dict[str, Contender] = {
        name: backend.probabilities for name, backend in backends.items()
    }
    if compiled:
        for name, backend in backends.items():
            contenders[f"compiled {name}"] = torch.compile(backend.logits, dynamic=True)
    return contenders


def random_texts(batch: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Random ids [B, T], and a mask that hides none of them."""
    return torch.randint(30522, (batch, tokens)), torch.ones(batch, tokens, dtype=torch.bool)


@torch.no_grad()
def _row(batch: int, tokens: int, times: dict[str, float]) -> dict[str, Any]:
    return {
        "B": batch,
        "T": tokens,
        "milliseconds": {name: round(t * 1e3, 2) for name, t in times.items()},
        "texts_a_second": {name: round(batch / t) for name, t in times.items()},
        "to_float32": {name: round(times["float32"] / t, 2) for name, t in times.items()},
    }


def _fixed_tokens(rows: list[dict[str, Any]], name: str) -> int:
    """a/b of the line through the times, each weighted so that relative errors count."""
    tokens = [row["B"] * row["T"] for row in rows]
    times = np.array([row["milliseconds"][name] for row in rows])
    slope, intercept = np.polyfit(tokens, times, 1, w=1 / times)
    fixed: float = intercept / slope
    return round(fixed)


if __name__ == "__main__":
    main()
