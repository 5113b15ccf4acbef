"""``attnpriv tune``: a search over settings that pays for itself."""

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
    EncoderOption,
    LabelColumn,
    MaxGradNormOption,
    MicroBatchTokensOption,
    NoiseSeedOption,
    OutOption,
    PoolingOption,
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
    trained_part,
)
from attnpriv.cli.output import console, print_classes, print_training, progress_bars
from attnpriv.config import AttentionConfig, ClipMode, Pooling, PrivacyConfig, Score, TrainConfig
from attnpriv.errors import InputError


def tune(
    data: SourceOption,
    epsilon: Annotated[str, typer.Option(help="The target ε of the whole search.")],
    out: OutOption,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of candidates: a table grid of lists, every combination of which is "
            "one, and an array of tables candidate, of trainable, steps, batch_size, "
            "learning_rate, head_learning_rate, ema_decay, warmup, decay, max_grad_norm and "
            "clipping. Default: "
            "head learning rates 0.05, 0.15 and 0.5 (for more than a head: learning rates 0.0003, "
            "0.001 and 0.003), each with 50 and 200 steps."
        ),
    ] = None,
    mean_runs: Annotated[
        float, typer.Option(help="Expected number of runs; the actual one is random and secret.")
    ] = 10.0,
    distribution: Annotated[
        str, typer.Option(help="Of the number of runs: poisson or geometric.")
    ] = "poisson",
    validation_share: Annotated[
        float, typer.Option(help="About this share of the rows scores the runs; the rest trains.")
    ] = 0.2,
    salt: Annotated[
        str, typer.Option(help="Of the hash that cuts the rows; choose it before you see them.")
    ] = "attnpriv",
    encoder: EncoderOption = "scratch",
    trainable: TrainableOption = "",
    delta: DeltaOption = PrivacyConfig.delta,
    temperature: TemperatureOption = 1.0,
    clip: ClipOption = "none",
    clip_mode: ClipModeOption = "clamp",
    score: ScoreOption = "dot_product",
    temperature_floor: TemperatureFloorOption = None,
    pooling: PoolingOption = "layers",
    share_layers: ShareLayersOption = False,
    batch_size: BatchSizeOption = None,
    max_grad_norm: MaxGradNormOption = PrivacyConfig.max_grad_norm,
    clipping: ClippingOption = PrivacyConfig.clipping,
    clipping_engine: ClippingEngineOption = PrivacyConfig.clipping_engine,
    precision: PrecisionOption = TrainConfig.precision,
    micro_batch_tokens: MicroBatchTokensOption = TrainConfig.micro_batch_tokens,
    seed: Annotated[int, typer.Option(help="Of the initial weights.")] = 0,
    noise_seed: NoiseSeedOption = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
    classes: ClassesOption = None,
) -> None:
    """Train with several settings, and keep the best run: ε is that of all of it.

    What the screen shows and how long it takes tell how many runs there were: keep that to
    yourself, and do not stop long searches to start them again. A search that is stopped leaves
    nothing and has spent nothing.
    """
    from attnpriv.training import tune as tune_model
    from attnpriv.training.candidates import default_candidates, load_candidates

    target = parse_number("epsilon", epsilon)
    if target is None:
        raise InputError(f"expected epsilon as a number in a search, got {epsilon!r}")
    attention = AttentionConfig(
        temperature,
        parse_number("clip", clip),
        cast(ClipMode, clip_mode),
        cast(Score, score),
        temperature_floor,
    )
    privacy = PrivacyConfig(
        epsilon=target,
        delta=delta,
        max_grad_norm=max_grad_norm,
        clipping=cast(Any, clipping),
        clipping_engine=cast(Any, clipping_engine),
        noise_seed=noise_seed,
    )
    common = TrainConfig(
        trainable=trained_part(trainable, encoder),
        batch_size=batch_size,
        precision=cast(Any, precision),
        micro_batch_tokens=micro_batch_tokens,
        seed=seed,
    )
    settings = default_candidates(common)
    if candidates is not None:
        settings = load_candidates(candidates, common)
    dataset = load(data, text_column, label_column, spans_column, classes=classes)
    print_classes(dataset)
    with progress_bars() as progress:
        # One bar for one run after the other, and no count of them: see the docstring.
        task = progress.add_task("preparing", total=None)
        result = tune_model(
            dataset,
            out,
            encoder=encoder,
            attention=attention,
            candidates=settings,
            privacy=privacy,
            mean_runs=mean_runs,
            distribution=cast(Any, distribution),
            validation_share=validation_share,
            salt=salt,
            pooling=cast(Pooling, pooling),
            share_layers=share_layers,
            on_step=lambda step, steps: progress.update(
                task, description="training", completed=step, total=steps
            ),
        )
    _print_best_run(result.card)
    print_training(result.card, out, result.skipped_records)


def _print_best_run(card: dict[str, Any]) -> None:
    training, search = card["training"], card["privacy"]["selection"]
    if search["score"] is None:
        return
    rates = f"head learning rate {training['head_learning_rate']:g}"
    if training["learning_rate"] is not None:
        rates += f", learning rate {training['learning_rate']:g}"
    console.print(
        f"best of {search['mean_runs']:g} runs expected: {card['trainable']}, {rates}; "
        f"{search['score']:.1f} of {card['metrics']['held_out']['rows']} validation rows right, "
        f"± {search['score_noise']:.2g} of noise (covered by ε)"
    )
