"""``attnpriv tune``: a search over settings that pays for itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attnpriv import config
from attnpriv.cli import options
from attnpriv.cli.output import console, print_classes, print_training, warn
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.progress import progress_bars

if TYPE_CHECKING:
    from attnpriv.runs.card import ModelCard


SEARCH = "Search"


def tune(
    context: typer.Context,
    *,
    data: options.Data,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    classes: options.Classes = None,
    candidates: Annotated[
        Path | None,
        typer.Option(
            help="TOML file with the settings to try: a table named grid, of lists, every "
            "combination of which is tried, or an array of tables named candidate, or both. They "
            "may set trainable, steps, batch_size, learning_rate, head_learning_rate, ema_decay, "
            "warmup, decay, max_grad_norm and clipping. Default: head learning rates 0.05, 0.15 "
            "and 0.5 (or, if more than the head is trained, learning rates 0.0003, 0.001 and "
            "0.003), each with 50 and with 200 steps.",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    mean_runs: Annotated[
        float,
        typer.Option(
            help="Expected number of trainings. The actual number is drawn at random and must stay "
            "secret.",
            rich_help_panel=SEARCH,
        ),
    ] = 10.0,
    distribution: Annotated[
        config.RunDistribution,
        typer.Option(
            help="Distribution that the number of trainings is drawn from.", rich_help_panel=SEARCH
        ),
    ] = "poisson",
    validation_share: Annotated[
        float,
        typer.Option(
            help="Share of the rows, about, on which the trainings are scored; the others are "
            "trained on.",
            rich_help_panel=SEARCH,
        ),
    ] = 0.2,
    salt: Annotated[
        str,
        typer.Option(
            help="Key of the hash that chooses the validation rows. Choose it before you see the "
            "data.",
            rich_help_panel=SEARCH,
        ),
    ] = "attnpriv",
    encoder: options.Encoder = None,
    trainable: options.Trainable = None,
    pooling: options.Pooling = None,
    share_layers: options.ShareLayers = False,
    normalise: options.Normalise = False,
    temperature: options.Temperature = 1.0,
    clip: options.Clip = None,
    clip_mode: options.ClipMode = "clamp",
    score: options.Score = "dot_product",
    temperature_floor: options.TemperatureFloor = None,
    epsilon: Annotated[
        float,
        typer.Option(
            help="The ε of differential privacy that the whole search never exceeds.",
            rich_help_panel=options.PRIVACY,
        ),
    ],
    delta: options.Delta = PrivacyConfig.delta,
    max_grad_norm: options.MaxGradNorm = PrivacyConfig.max_grad_norm,
    clipping: options.Clipping = PrivacyConfig.clipping,
    clipping_engine: options.ClippingEngine = PrivacyConfig.clipping_engine,
    noise_seed: options.NoiseSeed = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = TrainConfig.precision,
    micro_batch_tokens: options.MicroBatchTokens = TrainConfig.micro_batch_tokens,
    augmentation: options.AugmentationKind = None,
    augmentation_multiplicity: options.AugmentationMultiplicity = None,
    seed: Annotated[
        int,
        typer.Option(help="Seed of the initial weights.", rich_help_panel=options.TRAINING),
    ] = TrainConfig.seed,
    processes: options.ProcessCount = None,
    on: options.On = None,
    out: options.RunOut,
) -> None:
    """Train with several settings and keep the best run; ε covers the whole search.

    What the screen shows and how long the search takes reveal how many trainings there were. Keep
    that to yourself, and do not stop long searches to start them again. A search that is stopped
    leaves nothing behind and has spent nothing.
    """
    from attnpriv.data import load_dataset
    from attnpriv.training import tune as tune_model
    from attnpriv.training.candidates import default_candidates, load_candidates

    executor = options.executor_of(processes, on)
    encoder = encoder or options.SCRATCH
    attention = options.attention_of(
        context,
        encoder,
        temperature=temperature,
        clip=clip,
        clip_mode=clip_mode,
        score=score,
        temperature_floor=temperature_floor,
    )
    privacy = PrivacyConfig(
        epsilon=epsilon,
        delta=delta,
        max_grad_norm=max_grad_norm,
        clipping=clipping,
        clipping_engine=clipping_engine,
        noise_seed=noise_seed,
    )
    common = TrainConfig(
        trainable=options.trained_part(trainable, encoder),
        batch_size=batch_size,
        precision=precision,
        micro_batch_tokens=micro_batch_tokens,
        seed=seed,
        augmentation=augmentation,
        augmentation_multiplicity=augmentation_multiplicity,
    )
    settings = default_candidates(common)
    if candidates is not None:
        settings = load_candidates(candidates, common)
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        classes=classes,
    )
    print_classes(dataset)
    with progress_bars() as progress:
        # One bar for all trainings, and no count of them: see the docstring.
        task = progress.add_task("preparing", total=None)
        result = tune_model(
            dataset,
            out,
            encoder=encoder,
            attention=attention,
            candidates=settings,
            privacy=privacy,
            mean_runs=mean_runs,
            distribution=distribution,
            validation_share=validation_share,
            salt=salt,
            pooling=pooling,
            share_layers=share_layers,
            normalise=normalise,
            executor=executor,
            on_step=lambda step, steps: progress.update(
                task, description="training", completed=step, total=steps
            ),
            warn=warn,
        )
    _print_best_run(result.card)
    print_training(result.card, out, result.skipped_records)


def _print_best_run(card: ModelCard) -> None:
    assert card.training is not None  # as ``tune`` makes it
    assert card.privacy is not None
    assert card.privacy.selection is not None
    training, search = card.training, card.privacy.selection
    if search.score is None:
        return
    rates = f"head learning rate {training.head_learning_rate:g}"
    if training.learning_rate is not None:
        rates += f", learning rate {training.learning_rate:g}"
    console.print(
        f"best of {search.mean_runs:g} runs expected: {card.trainable}, {rates}; "
        f"{search.score:.1f} of {card.metrics.held_out.rows} validation rows right, "
        f"± {search.score_noise:.2g} of noise (covered by ε)"
    )
