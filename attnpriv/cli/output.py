"""How commands print: results on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from attnpriv.command import INTERRUPTED, complain
from attnpriv.data import Dataset

# What is printed is data: a label or a path may hold what would be markup or an emoji's code.
console = Console(markup=False, emoji=False)
progress_console = Console(stderr=True, markup=False, emoji=False)


@contextmanager
def resumable(has_begun: Callable[[], bool]) -> Iterator[None]:
    """Let Ctrl-C say whether --resume has something to go on with.

    Raises:
        typer.Exit: with the exit code 130, instead of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        nothing = "nothing had begun yet, so there is nothing to resume"
        complain(
            "interrupted", ["the same command with --resume goes on" if has_begun() else nothing]
        )
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on stderr, so that stdout stays for results."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_console, transient=True) as progress:
        yield progress


def print_json(value: dict[str, Any]) -> None:
    """JSON for machines."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def warn(message: str) -> None:
    """One line on stderr for what does not stop a command."""
    sys.stderr.write(f"warning: {message}\n")


def print_classes(dataset: Dataset) -> None:
    """The classes and how many rows each has, on stderr: a look at private data, kept nowhere."""
    names = dataset.label_names
    counts = [f"{name} {dataset.labels.count(number)}" for number, name in enumerate(names)]
    progress_console.print(
        f"{len(dataset)} rows in {len(names)} classes: {', '.join(counts)}\n"
        "(these counts are private data: training shows them here and writes them nowhere)",
        highlight=False,
        soft_wrap=True,
    )


def print_training(card: dict[str, Any], out: Path, skipped_records: int) -> None:
    """What the run folder holds, in a few lines."""
    privacy = card["privacy"]
    if privacy is not None:
        console.print(
            f"q = {privacy['sample_rate']:.4g} (expected batch {privacy['expected_batch_size']} of "
            f"{card['data']['rows_train']} rows), {privacy['steps']} steps, "
            f"σ = {privacy['noise_multiplier']:.4g}, C = {privacy['max_grad_norm']:g}"
        )
    for warning in card["warnings"]:
        console.print(warning, style="bold red")
    console.print(card["statement"])
    held_out = card["metrics"]["held_out"]
    console.print(
        f"held-out accuracy {held_out['accuracy']:.3f} on {held_out['rows']} rows "
        "(not covered by ε)"
    )
    if skipped_records:
        console.print(
            f"{skipped_records} gradients were not finite and were zeroed (not covered by ε)"
        )
    console.print(f"run folder: {out}", soft_wrap=True)
