"""What privacy costs in time and memory: one optimizer step, noise and all, of each engine.

Every step is a whole one: forward, backward, clipping, noise, Adam. The peers are used as their own
documentation does, on the whole batch. ``micro`` is training without privacy in the micro-batches
that our engine takes, to tell their effect from that of the clipping. Time is measured in one
process, all engines taking turns; peak memory in a process of its own for each.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.nn import functional as F

from attnpriv.config import AttentionConfig, ModelConfig, TrainConfig
from attnpriv.models.text import TextClassifier
from attnpriv.privacy.stepper import PrivateStepper
from attnpriv.randomness import StepKeys, Stream
from benchmarks.machine import own_memory
from benchmarks.timing import medians, timed

TIME_LIMIT, MEMORY_LIMIT = 1.30, 1.15
CLIP, NOISE = 0.1, 1.0
MICRO_BATCH_TOKENS = TrainConfig.micro_batch_tokens
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """A model and a batch."""

    name: str
    vocab_size: int
    batch: int
    tokens: int
    dim: int = 256
    layers: int = 4
    heads: int = 4
    hidden_dim: int = 1024

    def model(self) -> TextClassifier:
        """The model with random weights; speed does not depend on them."""
        torch.manual_seed(0)
        model = TextClassifier(
            ModelConfig(
                encoder="scratch",
                vocab_size=self.vocab_size,
                dim=self.dim,
                layers=self.layers,
                heads=self.heads,
                hidden_dim=self.hidden_dim,
                max_length=self.tokens,
                num_labels=2,
                pooling="mean",
                attention=AttentionConfig(),
            )
        )
        nn.init.normal_(model.head.weight)
        return model

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        """Ids, mask and labels of texts that fill their length."""
        generator = torch.Generator().manual_seed(1)
        shape = (self.batch, self.tokens)
        ids = torch.randint(0, self.vocab_size, shape, generator=generator)
        labels = torch.randint(0, 2, (self.batch,), generator=generator)
        return ids, torch.ones(shape, dtype=torch.bool), labels


CASES = [
    *(
        Case(f"d256 V={vocab_size} B={batch} T={tokens}", vocab_size, batch, tokens)
        for vocab_size in (8000, 30522)
        for batch, tokens in ((64, 128), (16, 128), (8, 512))
    ),
    Case("MiniLM B=16 T=128", 30522, 16, 128, dim=384, layers=6, heads=12, hidden_dim=1536),
]


def plain(case: Case, micro: bool = False, bfloat16: bool = False) -> Step:
    """A step without privacy."""
    model, data = case.model(), case.data()
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        for part in _pieces(case, data) if micro else [data]:
            _losses(model, part, bfloat16).sum().div(case.batch).backward()
        optimizer.step()

    return step


def ours(case: Case, bfloat16: bool = False) -> Step:
    """A private step of the book-keeping engine."""
    model, data, keys = case.model(), case.data(), StepKeys.from_seed(0)
    stepper = PrivateStepper(
        model,
        torch.optim.Adam(model.parameters()),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=case.batch,
    )

    def step() -> None:
        parts = (
            lambda module, part=part: _losses(module, part, bfloat16)
            for part in _pieces(case, data)
        )
        stepper.step(parts, Stream(keys.advance().noise))

    return step


def opacus_hooks(case: Case) -> Step:
    """A private step of Opacus with per-sample gradients."""
    data = case.data()
    model = GradSampleModule(case.model())
    optimizer = DPOptimizer(
        torch.optim.Adam(model.parameters()),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=case.batch,
    )

    def step() -> None:
        optimizer.zero_grad()
        _losses(model, data).mean().backward()
        optimizer.step()

    return step


def opacus_ghost(case: Case) -> Step:
    """A private step of Opacus with ghost clipping."""
    data = case.data()
    model = GradSampleModuleFastGradientClipping(
        case.model(), max_grad_norm=CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.Adam(model.parameters()),
        noise_multiplier=NOISE,
        max_grad_norm=CLIP,
        expected_batch_size=case.batch,
    )
    criterion = DPLossFastGradientClipping(model, optimizer, nn.CrossEntropyLoss())

    def step() -> None:
        optimizer.zero_grad()
        ids, mask, labels = data
        criterion(model(ids, mask), labels).backward()
        optimizer.step()

    return step


ENGINES: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "micro": lambda case: plain(case, micro=True),
    "ours": ours,
    "hooks": opacus_hooks,
    "ghost": opacus_ghost,
    "plain_bfloat16": lambda case: plain(case, bfloat16=True),
    "ours_bfloat16": lambda case: ours(case, bfloat16=True),
}


def main() -> None:
    """Measure every case, and print ratios to training without privacy."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--cases", default="", help="only those whose name holds this")
    arguments.add_argument("--memory-of", nargs=2, metavar=("CASE", "ENGINE"))
    options = arguments.parse_args()
    if options.memory_of:
        print(peak_memory(*options.memory_of))
        return
    rows = [measure(case, options.rounds) for case in CASES if options.cases in case.name]
    print(
        json.dumps(
            {
                "benchmark": "dp_training",
                "threads": torch.get_num_threads(),
                "limits": {"time": TIME_LIMIT, "memory": MEMORY_LIMIT},
                "within_limits": all(row["within_limits"] for row in rows),
                "rows": rows,
            }
        )
    )


def measure(case: Case, rounds: int) -> dict[str, object]:
    """Medians of a case, as ratios."""
    seconds = medians({name: timed(make(case)) for name, make in ENGINES.items()}, rounds)
    memory = {name: memory_in_a_process(case, name) for name in ENGINES}
    time_ratios = {name: seconds[name] / seconds["plain"] for name in ENGINES}
    memory_ratios = {name: memory[name] / memory["plain"] for name in ENGINES}
    row = {
        "case": case.name,
        "seconds_plain": seconds["plain"],
        "megabytes_plain": memory["plain"] / 1e6,
        "time": {name: round(ratio, 3) for name, ratio in time_ratios.items()},
        "memory": {name: round(ratio, 3) for name, ratio in memory_ratios.items()},
        "within_limits": time_ratios["ours"] <= TIME_LIMIT
        and memory_ratios["ours"] <= MEMORY_LIMIT,
        "counts": counts(case),
    }
    print(json.dumps(row), flush=True)
    return row


def memory_in_a_process(case: Case, engine: str) -> int:
    """Bytes of peak memory above the imports."""
    command = [sys.executable, "-m", "benchmarks.dp_training", "--memory-of", case.name, engine]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def peak_memory(case_name: str, engine: str) -> int:
    """The same in this process, after two steps."""
    case = next(case for case in CASES if case.name == case_name)
    imports = own_memory("VmRSS")
    step = ENGINES[engine](case)
    for _ in range(2):
        step()
    return own_memory("VmHWM") - imports


def counts(case: Case) -> dict[str, float]:
    """Work of a step: its floor, and what clipping and noise add to it.

    The floor is the multiplications and additions of the linear layers and of attention, forward
    and backward. A gradient that is written out needs no more of them, but is written once and read
    twice; noise takes a number for every parameter.
    """
    tokens = case.batch * case.tokens
    block = 4 * case.dim**2 + 2 * case.dim * case.hidden_dim
    linear = case.layers * block
    attention = case.layers * 2 * case.dim * case.tokens
    parameters = sum(p.numel() for p in case.model().parameters())
    return {
        "gigaflops_floor": 6 * tokens * (linear + attention) / 1e9,
        "gigabytes_of_gradients": 3 * 4 * case.batch * linear / 1e9,
        "million_noise_numbers": parameters / 1e6,
    }


def _pieces(case: Case, data: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    size = max(1, MICRO_BATCH_TOKENS // case.tokens)
    yield from zip(*(tensor.split(size) for tensor in data), strict=True)


def _losses(module: nn.Module, part: tuple[Tensor, ...], bfloat16: bool = False) -> Tensor:
    ids, mask, labels = part
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits = module(ids, mask)
    return F.cross_entropy(logits.float(), labels, reduction="none")


if __name__ == "__main__":
    main()
