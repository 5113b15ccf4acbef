"""``attnpriv train``: one training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnpriv import config
from attnpriv.cli import options
from attnpriv.cli.output import print_classes, print_training, resumable, warn
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.progress import progress_bars
from attnpriv.rounding import round_up

OF_PRIVACY = (
    "delta", "max_grad_norm", "clipping", "clipping_engine", "noise_multiplier", "sampler",
    "accountant", "noise_seed",
)  # fmt: skip


def train(
    context: typer.Context,
    *,
    data: options.Data,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    classes: options.Classes = None,
    train_size: options.TrainSize = TrainConfig.train_size,
    encoder: options.Encoder = None,
    distil_from: Annotated[
        Path | None,
        typer.Option(
            help="A run folder to learn from, trained on the same rows: the model starts with its "
            "weights and imitates its answers and hidden states, besides learning the labels. Only "
            "with --epsilon none.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    trainable: options.Trainable = None,
    pooling: options.Pooling = None,
    share_layers: options.ShareLayers = False,
    normalise: options.Normalise = False,
    heads: options.Heads = None,
    temperature: options.Temperature = 1.0,
    clip: options.Clip = None,
    clip_mode: options.ClipMode = "clamp",
    score: options.Score = "dot_product",
    temperature_floor: options.TemperatureFloor = None,
    epsilon: Annotated[
        str,
        typer.Option(
            metavar="NUMBER|none",
            help="The ε of differential privacy that the training never exceeds, or none to train "
            "without privacy.",
            rich_help_panel=options.PRIVACY,
        ),
    ],
    delta: options.Delta = PrivacyConfig.delta,
    max_grad_norm: options.MaxGradNorm = PrivacyConfig.max_grad_norm,
    clipping: options.Clipping = PrivacyConfig.clipping,
    clipping_engine: options.ClippingEngine = PrivacyConfig.clipping_engine,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            help="Noise multiplier σ. With a value of your own, training stops before the step "
            "that would exceed ε. Default: the smallest σ with which all steps stay within ε.",
            rich_help_panel=options.PRIVACY,
        ),
    ] = None,
    accountant: Annotated[
        config.Accountant,
        typer.Option(
            help="How the spent ε is computed: prv (tight) or rdp (looser).",
            rich_help_panel=options.PRIVACY,
        ),
    ] = PrivacyConfig.accountant,
    sampler: Annotated[
        config.Sampler,
        typer.Option(
            parser=str,  # not a choice: PrivacyConfig says of each other sampler why it is refused
            metavar="poisson",
            help="How batches are drawn. Only poisson is accepted, since ε holds for no other; "
            "the error says why.",
            rich_help_panel=options.PRIVACY,
        ),
    ] = PrivacyConfig.sampler,
    noise_seed: options.NoiseSeed = None,
    secure_rng: Annotated[
        bool,
        typer.Option(
            "--secure-rng",
            help="Has no effect: sampling and noise always come from ChaCha20.",
            show_default=False,
            rich_help_panel=options.PRIVACY,
        ),
    ] = True,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = TrainConfig.learning_rate,
    head_learning_rate: options.HeadLearningRate = TrainConfig.head_learning_rate,
    warmup: Annotated[
        float,
        typer.Option(
            help="Share of the steps over which the learning rates rise to their values.",
            rich_help_panel=options.TRAINING,
        ),
    ] = TrainConfig.warmup,
    decay: Annotated[
        config.Decay,
        typer.Option(
            help="How the learning rates fall afterwards; constant keeps them.",
            rich_help_panel=options.TRAINING,
        ),
    ] = TrainConfig.decay,
    ema_decay: Annotated[
        float,
        typer.Option(
            help="Decay of the moving average of the weights. The average is what is saved.",
            rich_help_panel=options.TRAINING,
        ),
    ] = TrainConfig.ema_decay,
    precision: options.Precision = TrainConfig.precision,
    micro_batch_tokens: options.MicroBatchTokens = TrainConfig.micro_batch_tokens,
    augmentation: options.AugmentationKind = None,
    augmentation_multiplicity: options.AugmentationMultiplicity = None,
    canaries: Annotated[
        int | None,
        typer.Option(
            metavar="M",
            help="Also train on made-up records, each by a fair coin, so that attnpriv audit can "
            "bound ε from below: M gradients along single axes, if there is an ε, and texts, at "
            "most one for every 10 rows. The coins are kept in a hidden file beside the run "
            "folder.",
            rich_help_panel=options.TRAINING,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the split into training and held-out rows, of the initial weights and, "
            "without privacy, of the batches.",
            rich_help_panel=options.TRAINING,
        ),
    ] = TrainConfig.seed,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Under torchrun, share the model among the processes too, so that each needs "
            "memory for a part of its weights, gradients and optimizer state only.",
            show_default=False,
            rich_help_panel=options.TRAINING,
        ),
    ] = False,
    out: options.RunOut,
    resume: options.Resume = False,
) -> None:
    """Train a text classifier and write its run folder.

    If it is interrupted, by Ctrl-C or a crash, the same command with --resume continues it. Started
    by torchrun, several processes share the work.
    """
    from attnpriv.data import load_dataset
    from attnpriv.training import has_begun, is_first_process
    from attnpriv.training import train as train_model

    target = options.number_or_none(epsilon, "'--epsilon'")
    encoder = encoder or (options.SCRATCH if distil_from is None else None)
    attention = options.attention_of(
        context,
        encoder or options.SCRATCH,
        temperature=temperature,
        clip=clip,
        clip_mode=clip_mode,
        score=score,
        temperature_floor=temperature_floor,
    )
    settings = TrainConfig(
        trainable=options.trained_part(trainable, encoder or options.SCRATCH),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        ema_decay=ema_decay,
        warmup=warmup,
        decay=decay,
        precision=precision,
        micro_batch_tokens=micro_batch_tokens,
        seed=seed,
        train_size=train_size,
        augmentation=augmentation,
        augmentation_multiplicity=augmentation_multiplicity,
    )
    privacy = None
    if target is None:
        _refuse_given(context, OF_PRIVACY)
    else:
        privacy = PrivacyConfig(
            epsilon=target,
            delta=delta,
            max_grad_norm=max_grad_norm,
            accountant=accountant,
            noise_multiplier=noise_multiplier,
            clipping=clipping,
            clipping_engine=clipping_engine,
            sampler=sampler,
            noise_seed=noise_seed,
        )
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        classes=classes,
    )
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
            config=settings,
            privacy=privacy,
            encoder=encoder,
            pooling=pooling,
            share_layers=share_layers,
            normalise=normalise,
            heads=heads,
            distil_from=distil_from,
            canaries=canaries,
            shard=shard,
            resume=resume,
            on_step=on_step,
            warn=warn,
        )
    if is_first_process():
        print_training(result.card, out, result.skipped_records)


def _refuse_given(context: typer.Context, names: tuple[str, ...]) -> None:
    """Raise InputError for options that somebody gave and that a plain training would ignore."""
    given = options.given(context, names)
    if given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise InputError(
            f"{listed} cannot be used with --epsilon none, which trains without privacy: "
            "leave it out, or give epsilon as a number"
        )
