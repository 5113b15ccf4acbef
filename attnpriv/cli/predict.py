"""``attnpriv predict``: the answers of a run to a file of any size."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnpriv.cli import options
from attnpriv.cli.output import console, resumable, warn
from attnpriv.progress import progress_bars


def predict(
    run: options.Run,
    data: Annotated[
        Path,
        typer.Option(
            help="The texts: a .csv, .tsv, .jsonl or .parquet file, or a .txt file with a text a "
            "line. It may be larger than the memory.",
            rich_help_panel=options.DATA,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="The file to write, .csv, .jsonl or .parquet: for each row its number, the label "
            "and the probabilities. It holds no text, and only you can read it.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    text_column: Annotated[
        str | None,
        typer.Option(
            help="Name of the column of texts. Default: text, or the only column.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            help="Name of a column that is copied into the output. Default: none.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    processes: options.ProcessCount = None,
    on: options.On = None,
    resume: options.Resume = False,
) -> None:
    """Classify a file of texts of any size, without a server.

    The answers are exact functions of your texts, and no policy limits them: guard the output as
    you guard the texts. If it is interrupted, by Ctrl-C or a crash, the same command with --resume
    continues it.
    """
    from attnpriv.runs.answers_of_file import Columns, answer_file, has_begun
    from attnpriv.runs.folder import load_run

    executor = options.executor_of(processes, on)
    loaded = load_run(run)
    with resumable(lambda: has_begun(out)), progress_bars() as progress:
        task = progress.add_task("predicting", total=None)
        answered = answer_file(
            loaded,
            data,
            out,
            Columns(text_column, id_column),
            executor=executor,
            resume=resume,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if answered.unread:
        warn(
            f"{answered.unread} of {answered.rows} rows have no text that the model can read; "
            "their labels are empty"
        )
    console.print(f"{answered.rows} rows: {out}", soft_wrap=True)
