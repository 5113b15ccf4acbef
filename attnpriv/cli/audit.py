"""``attnpriv audit``: what models make of personal data, and what they give away."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from attnpriv.cli.gate import outcome_lines
from attnpriv.cli.options import (
    JsonOption,
    LabelColumn,
    RunArgument,
    SourceOption,
    SpansColumn,
    TextColumn,
    load,
)
from attnpriv.cli.output import console, progress_bars, resumable, warn

if TYPE_CHECKING:
    from attnpriv.audit.results import Audit


def audit(
    run: RunArgument,
    data: SourceOption,
    out: Annotated[Path, typer.Option(help="Folder for the report, for people and for CI.")],
    against: Annotated[
        list[Path] | None, typer.Option(help="Another run to audit beside it; may be repeated.")
    ] = None,
    documents: Annotated[int, typer.Option(help="Most held-out rows to audit.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of samples, nulls and bootstraps.")] = 0,
    gates: Annotated[
        Path | None, typer.Option(help="gates.toml: limits to keep, or exit code 1 or 2.")
    ] = None,
    include_text: Annotated[
        bool,
        typer.Option(
            "--include-text", help="Show words in the token heatmaps; personal data stays hidden."
        ),
    ] = False,
    processes: Annotated[
        int, typer.Option(help="That share the work, each in one thread; no number changes a bit.")
    ] = 1,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished audit of this folder.")
    ] = False,
    json_: JsonOption = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
) -> None:
    """Audit runs side by side: utility, attention, attribution, membership, robustness."""
    from attnpriv.audit.subject import AuditOptions
    from attnpriv.audit.work import has_begun
    from attnpriv.report import exit_code, read_gates
    from attnpriv.report.auditing import audit_into
    from attnpriv.report.writer import HTML_NAME, JSON_NAME
    from attnpriv.runs.folder import load_run
    from attnpriv.sensitive import PresidioDetector

    limits = () if gates is None else read_gates(gates)
    loaded = [load_run(path) for path in (run, *(against or []))]
    dataset = load(data, text_column, label_column, spans_column, loaded[0].label_names)
    for each in loaded:
        if left_out := len(each.split(dataset).unknown):
            warn(
                f"{dataset.name} is not the data that {each.name} was trained on: {left_out} rows "
                "that may have been trained on are left out"
            )
    with resumable(lambda: has_begun(out)), _bars() as progress:
        written = audit_into(
            out,
            loaded,
            dataset,
            PresidioDetector(),
            AuditOptions(documents=documents, seed=seed),
            progress,
            resume=resume,
            processes=processes,
            include_text=include_text,
        )
    outcomes = written.check(limits, gates)  # the report is there, whatever a gate asks for in vain
    if json_:
        sys.stdout.write((out / JSON_NAME).read_text(encoding="utf-8"))
        raise typer.Exit(exit_code(outcomes))
    _print(written.audit, dataset.name)
    console.print(f"report: {out / HTML_NAME}\ndata:   {out / JSON_NAME}", soft_wrap=True)
    sys.stdout.write(outcome_lines(outcomes))
    raise typer.Exit(exit_code(outcomes))


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each stage, with the time that is left."""
    with progress_bars() as progress:
        tasks: dict[str, Any] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done, total=total)

        yield on_stage


def _print(result: Audit, data_name: str) -> None:
    from attnpriv.report import headline

    columns, rows = headline(result)
    table = Table(*columns, title=f"{data_name}, held-out rows")
    for row in rows:
        table.add_row(*row)
    console.print(table)
