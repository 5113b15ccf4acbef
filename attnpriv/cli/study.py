"""``attnpriv study``: what hardening and privacy cost and bring, each and both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from attnpriv.cli.options import (
    BatchSizeOption,
    ClassesOption,
    ClipModeOption,
    DeltaOption,
    EncoderOption,
    JsonOption,
    LabelColumn,
    MaxGradNormOption,
    NoiseSeedOption,
    SourceOption,
    SpansColumn,
    TemperatureOption,
    TextColumn,
    TrainableOption,
    load,
    parse_number,
    trained_part,
)
from attnpriv.cli.output import console, print_classes, progress_bars, resumable
from attnpriv.config import AttentionConfig, ClipMode, PrivacyConfig, TrainConfig
from attnpriv.errors import InputError


def study(
    data: SourceOption,
    epsilon: Annotated[str, typer.Option(help="The target ε of each private run.")],
    clip: Annotated[str, typer.Option(help="c, the largest logit of the hardened runs.")],
    out: Annotated[Path, typer.Option(help="Folder to make for runs, audits and the study.")],
    seeds: Annotated[int, typer.Option(help="How many, at least 3; four runs each.")] = 3,
    temperature: TemperatureOption = 1.0,
    clip_mode: ClipModeOption = "clamp",
    encoder: EncoderOption = "scratch",
    trainable: TrainableOption = "",
    delta: DeltaOption = PrivacyConfig.delta,
    steps: Annotated[
        int | None, typer.Option(help="Of each run; default: 200 for a head alone, else 100.")
    ] = None,
    batch_size: BatchSizeOption = None,
    max_grad_norm: MaxGradNormOption = PrivacyConfig.max_grad_norm,
    learning_rate: Annotated[
        float, typer.Option(help="Of the encoder, in all runs.")
    ] = TrainConfig.learning_rate,
    head_learning_rate: Annotated[
        float, typer.Option(help="Of the head, in all runs.")
    ] = TrainConfig.head_learning_rate,
    noise_seed: NoiseSeedOption = None,
    documents: Annotated[int, typer.Option(help="Most held-out rows to audit, a run.")] = 1200,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished study of this folder.")
    ] = False,
    json_: JsonOption = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
    classes: ClassesOption = None,
) -> None:
    """Train and audit plain, hardened, private, and private and hardened models, seed by seed.

    The plain and the hardened runs have no ε: publish none of them where the data is private.
    """
    from attnpriv.audit.subject import AuditOptions
    from attnpriv.sensitive import PresidioDetector
    from attnpriv.study import WHOLE, Design, run_study
    from attnpriv.study.running import SETTINGS
    from attnpriv.study.writing import JSON_NAME

    target = parse_number("epsilon", epsilon)
    if target is None:
        raise InputError(f"expected epsilon as a number in a study, got {epsilon!r}")
    design = Design(
        attention=AttentionConfig(
            temperature, parse_number("clip", clip), cast(ClipMode, clip_mode)
        ),
        privacy=PrivacyConfig(
            epsilon=target, delta=delta, max_grad_norm=max_grad_norm, noise_seed=noise_seed
        ),
        config=TrainConfig(
            trainable=trained_part(trainable, encoder),
            steps=steps,
            batch_size=batch_size,
            learning_rate=learning_rate,
            head_learning_rate=head_learning_rate,
        ),
        encoder=encoder,
        seeds=seeds,
        audit=AuditOptions(documents=documents),
    )
    dataset = load(data, text_column, label_column, spans_column, classes=classes)
    print_classes(dataset)
    begun = out / SETTINGS
    with resumable(begun.exists), progress_bars() as progress:
        tasks = {of: progress.add_task(of, total=None) for of in (WHOLE, "preparing")}

        def on_stage(stage: str, done: int, total: int) -> None:
            task = tasks[WHOLE if stage == WHOLE else "preparing"]
            progress.update(task, description=stage, completed=done, total=total)

        result = run_study(
            dataset, out, design, detector=PresidioDetector(), resume=resume, progress=on_stage
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
