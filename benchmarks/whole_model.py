"""What the bound costs a whole model: MiniLM's shape with hardened over plain attention.

A forward pass is the server's, in its backend; a training step is forward, backward and gradients
of all weights, in bfloat16 under autocast as the trainer's. The modes take turns with plain
attention on the same texts in one process, and the ratios are those of the medians.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnpriv.attention.scores import has_native_bfloat16
from attnpriv.config import AttentionConfig, ClipMode
from attnpriv.models.text import TextClassifier
from attnpriv_server.backend import EagerBackend
from benchmarks.backends import DTYPES, minilm_shaped, random_texts
from benchmarks.machine import processor
from benchmarks.timing import medians, timed

TOKENS_AT_ONCE = 1024  # B × T
LENGTHS = (32, 128, 256)
CLIP, TEMPERATURE = 0.97, 1.0
MODES: tuple[ClipMode, ...] = ("clamp", "tanh", "norm", "relative")
PLAIN, AIM = "plain", 1.05
Models = dict[str, TextClassifier]
Contender = Callable[[], object]


def main() -> None:
    """Measure every length, type and pass; print a line for each and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.whole_model")
    parser.add_argument("--rounds", type=int, default=11, help="times each contender runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for row in measure(options.lengths, options.modes, options.rounds):
        print(row, flush=True)
        rows.append(row)
    about = {
        "processor": processor(),
        "native_bfloat16": has_native_bfloat16(),
        "threads": options.threads,
        "aim": AIM,
    }
    print(json.dumps({"benchmark": "whole_model", **about, "rows": rows}))


def measure(
    lengths: Sequence[int], modes: Sequence[ClipMode], rounds: int
) -> Iterator[dict[str, Any]]:
    """A row for each type, length and pass.

    Args:
        lengths: tokens of a text.
        modes: of hardened attention.
        rounds: how often each contender is timed.
    """
    torch.manual_seed(0)
    configs = {mode: AttentionConfig(TEMPERATURE, CLIP, mode) for mode in modes}
    models = {
        name: minilm_shaped(each) for name, each in {PLAIN: AttentionConfig(), **configs}.items()
    }
    for name, dtype in DTYPES.items():
        for tokens in lengths:
            texts = random_texts(max(1, TOKENS_AT_ONCE // tokens), tokens)
            passes = {
                "forward": _forward_passes(models, dtype, texts),
                "training step": _training_steps(models, dtype, texts),
            }
            for kind, contenders in passes.items():
                times = medians({each: timed(call) for each, call in contenders.items()}, rounds)
                yield {
                    "pass": kind,
                    "dtype": name,
                    "T": tokens,
                    "plain_milliseconds": round(times[PLAIN] * 1e3, 1),
                    "ratios": {mode: round(times[mode] / times[PLAIN], 3) for mode in modes},
                }


def _forward_passes(
    models: Models, dtype: torch.dtype, texts: tuple[Tensor, Tensor]
) -> dict[str, Contender]:
    return {
        name: partial(EagerBackend(model, dtype).probabilities, *texts)
        for name, model in models.items()
    }


def _training_steps(
    models: Models, dtype: torch.dtype, texts: tuple[Tensor, Tensor]
) -> dict[str, Contender]:
    labels = torch.zeros(len(texts[0]), dtype=torch.long)

    def step(model: TextClassifier) -> None:
        model.requires_grad_(True).zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            outputs = model(*texts)
        F.cross_entropy(outputs.float(), labels).backward()
        model.requires_grad_(False)

    return {name: partial(step, model) for name, model in models.items()}


if __name__ == "__main__":
    main()
