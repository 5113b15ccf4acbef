"""How commands print: results on stdout, what is said besides on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from attnpriv.command import INTERRUPTED, complain

if TYPE_CHECKING:
    from attnpriv.data import Dataset
    from attnpriv.runs.card import ModelCard
    from attnpriv.runs.folder import Run

# Labels and paths are printed too, and may look like markup or like the code of an emoji.
console = Console(markup=False, emoji=False)
error_console = Console(stderr=True, markup=False, emoji=False)


@contextmanager
def resumable(has_begun: Callable[[], bool]) -> Iterator[None]:
    """After Ctrl-C, say whether there is something to resume.

    Raises:
        typer.Exit: with exit code 130, in place of KeyboardInterrupt.
    """
    try:
        yield
    except KeyboardInterrupt:
        nothing = "nothing had begun yet, so there is nothing to resume"
        complain(
            "interrupted",
            ["to continue, run the same command with --resume" if has_begun() else nothing],
        )
        raise typer.Exit(INTERRUPTED) from None


def print_json(value: dict[str, Any]) -> None:
    """Print JSON for machines on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def warn(message: str) -> None:
    """Print one line on stderr about something that does not stop the command."""
    sys.stderr.write(f"warning: {message}\n")


def warn_of_unknown(run: Run, dataset: Dataset) -> None:
    """Warn of texts that a run's model cannot read, where that is more than a little."""
    from attnpriv.data.unknown import NOTICEABLE

    unknown = run.modality.unknown(dataset.records, run.modality.read(dataset.records))
    if unknown.share > NOTICEABLE:
        warn(
            f"{run.name} cannot read all of the texts of {dataset.name}: {unknown}; its "
            "answers to such texts say little"
        )


def print_classes(dataset: Dataset) -> None:
    """Print the classes and their row counts on stderr: private data, which is stored nowhere."""
    names = dataset.label_names
    counts = [f"{name} {dataset.labels.count(number)}" for number, name in enumerate(names)]
    error_console.print(
        f"{len(dataset)} rows in {len(names)} classes: {', '.join(counts)}\n"
        "(these counts are private data: they are shown here and written nowhere)",
        highlight=False,
        soft_wrap=True,
    )


def print_training(card: ModelCard, out: Path, skipped_records: int) -> None:
    """Print what the run folder holds, in a few lines."""
    privacy = card.privacy
    if privacy is not None:
        console.print(
            f"q = {privacy.sample_rate:.4g} (expected batch {privacy.expected_batch_size} of "
            f"{card.data.rows_train} rows), {privacy.steps} steps, "
            f"σ = {privacy.noise_multiplier:.4g}, C = {privacy.max_grad_norm:g}"
        )
    for warning in card.warnings:
        console.print(warning, style="bold red")
    console.print(card.statement)
    held_out = card.metrics.held_out
    console.print(
        f"held-out accuracy {held_out.accuracy:.3f} on {held_out.rows} rows (not covered by ε)"
    )
    if skipped_records:
        console.print(
            f"{skipped_records} gradients were not finite and were set to zero (not covered by ε)"
        )
    if card.canaries is not None:
        from attnpriv.runs.canaries import canaries_path

        console.print(
            f"canaries: {card.canaries.gradients} gradients and {card.canaries.texts} texts; the "
            f"coins are in {canaries_path(out)}, which attnpriv audit reads: keep it there, and "
            "pass it on to nobody",
            soft_wrap=True,
        )
    console.print(f"run folder: {out}", soft_wrap=True)
