"""``attnpriv train``: one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from attnpriv.cli.options import (
    BatchSizeOption,
    ClassesOption,
    ClipModeOption,
    ClipOption,
    ClippingEngineOption,
    ClippingOption,
    DeltaOption,
    LabelColumn,
    MaxGradNormOption,
    MicroBatchTokensOption,
    NoiseSeedOption,
    OutOption,
    PrecisionOption,
    ScoreOption,
    ShareLayersOption,
    SourceOption,
    SpansColumn,
    TemperatureFloorOption,
    TemperatureOption,
    TextColumn,
    TrainableOption,
    load,
    parse_number,
    parse_train_size,
    trained_part,
)
from attnpriv.cli.output import print_classes, print_training, progress_bars, resumable
from attnpriv.config import AttentionConfig, ClipMode, Pooling, PrivacyConfig, Score, TrainConfig
from attnpriv.rounding import round_up


def train(
    data: SourceOption,
    epsilon: Annotated[str, typer.Option(help="The target ε, or none to train without privacy.")],
    out: OutOption,
    encoder: Annotated[
        str | None, typer.Option(help="scratch (the default), minilm, or a BERT or MPNet folder.")
    ] = None,
    distil_from: Annotated[
        Path | None,
        typer.Option(
            help="A run folder of the same rows, whose weights the model starts with, and whose "
            "answers and hidden states it learns from besides the labels. Without privacy only."
        ),
    ] = None,
    trainable: TrainableOption = "",
    delta: DeltaOption = PrivacyConfig.delta,
    temperature: TemperatureOption = 1.0,
    clip: ClipOption = "none",
    clip_mode: ClipModeOption = "clamp",
    score: ScoreOption = "dot_product",
    temperature_floor: TemperatureFloorOption = None,
    pooling: Annotated[str | None, typer.Option(help="layers (the default), mean or cls.")] = None,
    share_layers: ShareLayersOption = False,
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps; default: 200 for a head alone, else 100.")
    ] = None,
    batch_size: BatchSizeOption = None,
    max_grad_norm: MaxGradNormOption = PrivacyConfig.max_grad_norm,
    clipping: ClippingOption = PrivacyConfig.clipping,
    clipping_engine: ClippingEngineOption = PrivacyConfig.clipping_engine,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            help="σ; the run then stops before the step that would exceed ε. Default: the smallest "
            "with which all steps stay within ε."
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option(help="poisson; others are refused, with the reason.")
    ] = PrivacyConfig.sampler,
    learning_rate: Annotated[
        float, typer.Option(help="Of the encoder.")
    ] = TrainConfig.learning_rate,
    head_learning_rate: Annotated[
        float, typer.Option(help="Of the head.")
    ] = TrainConfig.head_learning_rate,
    warmup: Annotated[
        float, typer.Option(help="Share of the steps over which the learning rates rise.")
    ] = TrainConfig.warmup,
    decay: Annotated[
        str, typer.Option(help="How they fall afterwards: constant, linear or cosine.")
    ] = TrainConfig.decay,
    ema_decay: Annotated[
        float, typer.Option(help="Of the average of the weights, which is what is kept.")
    ] = TrainConfig.ema_decay,
    precision: PrecisionOption = TrainConfig.precision,
    micro_batch_tokens: MicroBatchTokensOption = TrainConfig.micro_batch_tokens,
    accountant: Annotated[str, typer.Option(help="prv or rdp.")] = "prv",
    seed: Annotated[int, typer.Option(help="Of the split and the initial weights.")] = 0,
    noise_seed: NoiseSeedOption = None,
    secure_rng: Annotated[
        bool,
        typer.Option(
            "--secure-rng", help="Always so: coins and noise come from ChaCha20. Changes nothing."
        ),
    ] = True,
    train_size: Annotated[
        str,
        typer.Option(
            help="Rows to train on. A share below 1 goes by the text of each row, so that the rows "
            "of a changed file can still be told apart; a whole number shuffles the rows."
        ),
    ] = str(TrainConfig.train_size),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the unfinished training of this folder.")
    ] = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
    classes: ClassesOption = None,
) -> None:
    """Train a text classifier and write its run folder.

    Whatever stops it, Ctrl-C or a crash: the same command with --resume goes on. Under torchrun,
    the processes share the work.
    """
    from attnpriv.training import has_begun, is_first_process
    from attnpriv.training import train as train_model

    attention = AttentionConfig(
        temperature,
        parse_number("clip", clip),
        cast(ClipMode, clip_mode),
        cast(Score, score),
        temperature_floor,
    )
    config = TrainConfig(
        trainable=trained_part(trainable, encoder or "scratch"),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        ema_decay=ema_decay,
        warmup=warmup,
        decay=cast(Any, decay),
        precision=cast(Any, precision),
        micro_batch_tokens=micro_batch_tokens,
        seed=seed,
        train_size=parse_train_size(train_size),
    )
    target = parse_number("epsilon", epsilon)
    privacy = None
    if target is not None:
        privacy = PrivacyConfig(
            epsilon=target,
            delta=delta,
            max_grad_norm=max_grad_norm,
            accountant=cast(Any, accountant),
            noise_multiplier=noise_multiplier,
            clipping=cast(Any, clipping),
            clipping_engine=cast(Any, clipping_engine),
            sampler=cast(Any, sampler),
            noise_seed=noise_seed,
        )
    dataset = load(data, text_column, label_column, spans_column, classes=classes)
    if is_first_process():
        print_classes(dataset)
    with resumable(lambda: has_begun(out)), progress_bars() as progress:
        task = progress.add_task("preparing", total=None)

        def on_step(step: int, total: int, spent: float | None) -> None:
            stage = "training" if spent is None else f"training, ε ≤ {round_up(spent, 2)} spent"
            progress.update(task, description=stage, completed=step, total=total)

        result = train_model(
            dataset,
            out,
            attention=attention,
            config=config,
            privacy=privacy,
            encoder=encoder,
            pooling=cast(Pooling | None, pooling),
            share_layers=share_layers,
            distil_from=distil_from,
            resume=resume,
            on_step=on_step,
        )
    if is_first_process():
        print_training(result.card, out, result.skipped_records)
