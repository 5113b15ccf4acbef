"""``attnpriv verify-trainer``: does the training do what its accountant is told?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from attnpriv.cli import options
from attnpriv.cli.output import console, print_json
from attnpriv.config import PrivacyConfig, TrainConfig
from attnpriv.estimates import to_plain
from attnpriv.progress import progress_bars

FAILED = 1


def verify_trainer(
    context: typer.Context,
    *,
    rows: Annotated[
        int,
        typer.Option(
            help="Number of training rows, which with --batch-size decides the sampling rate. No "
            "data is read.",
            rich_help_panel=options.DATA,
        ),
    ] = 4000,
    class_count: Annotated[
        int, typer.Option("--classes", help="Number of classes.", rich_help_panel=options.DATA)
    ] = 2,
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
            help="The ε that the noise is computed from, as attnpriv train does.",
            rich_help_panel=options.PRIVACY,
        ),
    ] = 3.0,
    delta: options.Delta = PrivacyConfig.delta,
    max_grad_norm: options.MaxGradNorm = PrivacyConfig.max_grad_norm,
    clipping: options.Clipping = PrivacyConfig.clipping,
    clipping_engine: options.ClippingEngine = PrivacyConfig.clipping_engine,
    noise_multiplier: Annotated[
        float | None,
        typer.Option(
            help="Noise multiplier σ. Default: the one that --epsilon needs.",
            rich_help_panel=options.PRIVACY,
        ),
    ] = None,
    steps: options.Steps = None,
    batch_size: options.BatchSize = None,
    precision: options.Precision = TrainConfig.precision,
    micro_batch_tokens: options.MicroBatchTokens = TrainConfig.micro_batch_tokens,
    augmentation: options.AugmentationKind = None,
    augmentation_multiplicity: options.AugmentationMultiplicity = None,
    json_: options.Json = False,
) -> None:
    """Check by replay that a private training does what its accountant is told.

    The training of this configuration is shown made-up records, with and without one of them and
    with the same coins: what one record adds, the noise, the sampling rate and the divisor are
    compared with what is stated. Exit code 1 if a check fails. Passing proves no privacy.
    """
    from attnpriv.training.verification import verify_trainer as verify

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
    with progress_bars() as progress:
        task = progress.add_task("preparing", total=None)
        found = verify(
            attention=attention,
            config=TrainConfig(
                trainable=options.trained_part(trainable, encoder),
                steps=steps,
                batch_size=batch_size,
                precision=precision,
                micro_batch_tokens=micro_batch_tokens,
                augmentation=augmentation,
                augmentation_multiplicity=augmentation_multiplicity,
            ),
            privacy=PrivacyConfig(
                epsilon=epsilon,
                delta=delta,
                max_grad_norm=max_grad_norm,
                noise_multiplier=noise_multiplier,
                clipping=clipping,
                clipping_engine=clipping_engine,
            ),
            encoder=encoder,
            pooling=pooling or "layers",
            share_layers=share_layers,
            normalise=normalise,
            rows=rows,
            classes=class_count,
            on_step=lambda words: progress.update(task, description=words),
        )
    if json_:
        checks = [asdict(check) for check in found.checks]
        found_all = {"passed": found.passed, "trained": found.trained, "checks": checks}
        print_json(to_plain(found_all))
    else:
        table = Table("check", "stated", "measured", "", "about")
        for check in found.checks:
            verdict = "PASS" if check.passed else "FAIL"
            figures = (f"{check.stated:.4g}", f"{check.measured:.4g}")
            table.add_row(check.name, *figures, verdict, check.detail)
        console.print(table)
        console.print(
            f"q = {found.plan.schedule.sample_rate:.4g}, σ = {found.plan.noise_multiplier:.4g}, "
            f"C = {max_grad_norm:g}, {found.trained:,} trained numbers. Deviations of noise are in "
            "units of σC. A trainer that passes was not caught by these checks; that proves no "
            "privacy."
        )
    raise typer.Exit(0 if found.passed else FAILED)
