"""``attnpriv study``: what hardening and privacy cost and bring, each and both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from attnpriv.cli import options
from attnpriv.cli.output import console, print_classes, resumable, warn
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.progress import progress_bars


def study(
    context: typer.Context,
    *,
    data: options.Data,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    classes: options.Classes = None,
    documents: Annotated[
        int,
        typer.Option(
            help="Most held-out rows that the audit of a run uses.", rich_help_panel=options.DATA
        ),
    ] = 1200,
    encoder: options.Encoder = None,
    plain_encoder: Annotated[
        str | None,
        typer.Option(
            help="The encoder of the runs that are not hardened, where that of the others is "
            "bounded. Default: minilm beside minilm-bounded, else --encoder.",
            show_default=False,
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    trainable: options.Trainable = None,
    clip: Annotated[
        float | None,
        typer.Option(
            help="Clip c of the hardened runs, the largest absolute attention logit. Needed unless "
            "the encoder is bounded.",
            show_default=False,
            rich_help_panel=options.ATTENTION,
        ),
    ] = None,
    temperature: options.Temperature = 1.0,
    clip_mode: options.ClipMode = "clamp",
    epsilon: Annotated[
        float,
        typer.Option(
            help="The ε of differential privacy that each private run never exceeds.",
            rich_help_panel=options.PRIVACY,
        ),
    ],
    delta: options.Delta = PrivacyConfig.delta,
    max_grad_norm: options.MaxGradNorm = PrivacyConfig.max_grad_norm,
    noise_seed: options.NoiseSeed = None,
    seeds: Annotated[
        int,
        typer.Option(
            help="Number of seeds, at least 3. Each of them trains four runs.",
            rich_help_panel=options.TRAINING,
        ),
    ] = 3,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = TrainConfig.learning_rate,
    head_learning_rate: options.HeadLearningRate = TrainConfig.head_learning_rate,
    detection: options.Detection = None,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to make for the runs, their audits and the study.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    processes: options.ProcessCount = None,
    on: options.On = None,
    resume: options.Resume = False,
    json_: options.Json = False,
) -> None:
    """Measure what hardening and privacy cost and bring, each alone and both together.

    For each seed, trains and audits four models: plain, hardened, private, and private and
    hardened. The plain and the hardened ones have no ε: if the data is private, publish neither.
    """
    from attnpriv.audit.subject import AuditOptions
    from attnpriv.data import load_dataset
    from attnpriv.sensitive import PresidioDetector, load_rules
    from attnpriv.study import WHOLE, Design, run_study
    from attnpriv.study.running import SETTINGS
    from attnpriv.study.writing import JSON_NAME

    executor = options.executor_of(processes, on)
    rules = None if detection is None else load_rules(detection)
    encoder = encoder or options.SCRATCH
    design = Design(
        attention=options.attention_of(
            context, encoder, temperature=temperature, clip=clip, clip_mode=clip_mode
        ),
        privacy=PrivacyConfig(
            epsilon=epsilon, delta=delta, max_grad_norm=max_grad_norm, noise_seed=noise_seed
        ),
        config=TrainConfig(
            trainable=options.trained_part(trainable, encoder),
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
        ),
        encoder=encoder,
        plain_encoder=plain_encoder,
        seeds=seeds,
        audit=AuditOptions(documents=documents),
    )
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        classes=classes,
    )
    print_classes(dataset)
    begun = out / SETTINGS
    with resumable(begun.exists), progress_bars() as progress:
        tasks = {of: progress.add_task(of, total=None) for of in (WHOLE, "preparing")}

        def on_stage(stage: str, done: int, total: int) -> None:
            task = tasks[WHOLE if stage == WHOLE else "preparing"]
            progress.update(task, description=stage, completed=done, total=total)

        result = run_study(
            dataset,
            out,
            design,
            detector=PresidioDetector(rules),
            resume=resume,
            progress=on_stage,
            warn=warn,
            executor=executor,
        )
    if json_:
        sys.stdout.write((out / JSON_NAME).read_text(encoding="utf-8"))
        return
    _print(result, out)


def _print(result: Any, out: Path) -> None:
    from attnpriv.study import effects_table, means_table
    from attnpriv.study.writing import MARKDOWN_NAME, cost

    seeds = len(result.seeds)
    titles = (f"{result.data}, mean of {seeds} seeds", "effects, with 95 % intervals over seeds")
    for title, (columns, rows) in zip(
        titles, (means_table(result), effects_table(result)), strict=True
    ):
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    console.print(cost(result.composition))
    console.print(f"study: {out / MARKDOWN_NAME}", soft_wrap=True)
