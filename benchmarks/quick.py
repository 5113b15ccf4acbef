"""Every ratio in one page and ten minutes, for anyone's machine: `make bench-quick`.

Each benchmark runs by itself with few rounds, one after the other; what it compares takes turns in
its own process, so that the ratios hold on a machine that is doing other things, if less exactly.
The full benchmarks say more, and with more rounds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.machine import processor

CAPABILITIES = {
    "avx2": "AVX2",
    "avx512_f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "amx_bf16": "AMX bf16",
}
Found = dict[str, Any]
"""The JSON object on a benchmark's last line."""


@dataclass(frozen=True)
class Line:
    """One figure of the page.

    Attributes:
        what: is compared, with what.
        figure: a ratio, or a number with its unit in ``what``.
        aim: as text.
    """

    what: str
    figure: float
    aim: str = ""


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        title: of its lines.
        command: its module and arguments.
        read: makes the lines of what it found.
    """

    title: str
    command: tuple[str, ...]
    read: Callable[[Found], Iterator[Line]]


def main() -> None:
    """Run the parts, print the page, and all that was found as JSON."""
    console = Console(width=100)
    table = Table(title=f"{processor()}; {_can()}; {torch.get_num_threads()} threads at most")
    for heading in ("", "figure", "aim"):
        table.add_column(heading)
    started, found = time.monotonic(), {}
    for part in PARTS:
        console.print(f"{part.title} ...")
        try:
            found[part.title] = _run(part.command)
        except (subprocess.CalledProcessError, ValueError) as error:
            console.print(f"  not measured: {error}")
            continue
        table.add_section()
        table.add_row(part.title)
        for line in part.read(found[part.title]):
            table.add_row(f"  {line.what}", f"{line.figure:.2f}", line.aim)
    console.print(table)
    seconds = round(time.monotonic() - started)
    about = {"processor": processor(), "can": _can(), "seconds": seconds}
    print(json.dumps({"benchmark": "quick", **about, "found": found}))


def _run(command: tuple[str, ...]) -> Found:
    done = subprocess.run(
        [sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, check=True
    )
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def _whole_model(found: Found) -> Iterator[Line]:
    for row in found["rows"]:
        for mode, ratio in row["ratios"].items():
            yield Line(f"{row['pass']}, {row['dtype']}, {row['T']} tokens, {mode}", ratio, "≤ 1.05")


def _training(found: Found) -> Iterator[Line]:
    for row in found["rows"]:
        yield Line(f"time of a step, {row['case']}", row["time"]["ours"], "≤ 1.10")
        yield Line(f"memory of a step, {row['case']}", row["memory"]["ours"], "≤ 1.05")


def _audit(found: Found) -> Iterator[Line]:
    for name, words in (("attention", "attention"), ("integrated_gradients", "gradients")):
        limit = f"≤ {found[name]['limit']}"
        yield Line(f"{words}, over the bare passes", found[name]["ratio"], limit)
        yield Line(f"{words}, documents a second", found[name]["audit_documents_per_second"])


def _serving(found: Found) -> Iterator[Line]:
    for check in found["checks"]:
        if check["what"].startswith("of the limit") and check["figure"] is not None:
            yield Line(f"{check['mix']}: throughput {check['what']}", check["figure"], "≥ 0.90")
    for start in found["starts"]:
        if start["models"] == 1:
            yield Line(f"{start['server']}: s to the first answer", start["seconds"], "≤ 4")
            yield Line(f"{start['server']}: MB with one model", start["memory_mb"], "≤ 450")


def _can() -> str:
    found = torch.cpu.get_capabilities()
    return ", ".join(words for name, words in CAPABILITIES.items() if found.get(name)) or "no AVX2"


PARTS = (
    Part(
        "Whole model, bounded over plain attention",
        ("benchmarks.whole_model", "--rounds", "5", "--lengths", "32", "256"),
        _whole_model,
    ),
    Part(
        "Private over plain training",
        ("benchmarks.dp_training", "--rounds", "3", "--cases", "MiniLM"),
        _training,
    ),
    Part(
        "Audit",
        (
            *("benchmarks.audit", "--documents", "16", "--ig-documents", "1", "--rounds", "3"),
            *("--memory-documents", "50"),
        ),
        _audit,
    ),
    Part(
        "Server, one worker",
        ("benchmarks.serving", "--only", "attnpriv", "--rounds", "1", "--seconds", "1.5"),
        _serving,
    ),
)


if __name__ == "__main__":
    main()
