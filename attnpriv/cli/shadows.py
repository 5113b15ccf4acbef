"""``attnpriv shadows``: models trained like a run, for attacks on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnpriv.cli import options
from attnpriv.cli.output import console, resumable
from attnpriv.progress import stage_bars


def shadows(
    like: Annotated[
        Path,
        typer.Option(
            help="The run folder whose training is imitated.", rich_help_panel=options.MODEL
        ),
    ],
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to make for the shadow models. It is as private as the data: never serve "
            "or publish anything in it.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    models: Annotated[
        int,
        typer.Option(
            help="Number of shadow models, at least 8. More make stronger attacks.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 64,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Folder of the pretrained encoder, where the run trained one that came from a "
            "folder.",
            show_default=False,
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the coins that choose each model's half of the records.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 0,
    processes: options.ProcessCount = None,
    on: options.On = None,
    resume: options.Resume = False,
) -> None:
    """Train models like a run, each on a random half of its data.

    With them, attnpriv audit --shadows attacks the run by LiRA and RMIA. Models of a private run
    have its ε each. If it is interrupted, by Ctrl-C or a crash, the same command with --resume
    continues it.
    """
    from attnpriv.data import load_dataset
    from attnpriv.runs.folder import load_run
    from attnpriv.shadows import has_begun, train_shadows

    executor = options.executor_of(processes, on)
    run = load_run(like)
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        label_names=run.label_names,
        kind=run.kind,
    )
    with resumable(lambda: has_begun(out)), stage_bars() as on_stage:
        train_shadows(
            run,
            dataset,
            out,
            models=models,
            seed=seed,
            encoder=encoder,
            resume=resume,
            progress=on_stage,
            executor=executor,
        )
    console.print(f"{models} shadow models of {run.name}: {out}", soft_wrap=True)
    console.print("as private as the data: never serve or publish anything in this folder")
