"""``attnpriv encoder``: encoders whose attention is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnpriv import config
from attnpriv.cli import options
from attnpriv.cli.output import console, resumable
from attnpriv.config import AttentionConfig, BoundingConfig
from attnpriv.progress import progress_bars

encoder_app = typer.Typer(
    no_args_is_help=True, help="Make encoders whose attention is bounded, from public texts."
)


@encoder_app.command()
def bound(
    *,
    encoder: Annotated[
        str,
        typer.Option(
            help="The encoder to copy: minilm, or a folder with a pretrained BERT, DistilBERT, "
            "MPNet, RoBERTa or XLM-RoBERTa; with transformers installed, also an ALBERT, "
            "CamemBERT, Data2VecText, ELECTRA, ERNIE, EuroBERT, ModernBERT, RoBERTa-PreLayerNorm "
            "or XLM-RoBERTa-XL.",
            rich_help_panel=options.MODEL,
        ),
    ],
    texts: Annotated[
        list[Path],
        typer.Option(
            help="A file of public texts in UTF-8, one a line, or a folder of such .txt files; "
            "repeat the option for more. Do not give private texts: no ε covers them. Any public "
            "text of the language and the kind that the encoder is to read will do; 100,000 varied "
            "lines are a good number.",
            rich_help_panel=options.DATA,
        ),
    ],
    start_from: Annotated[
        str | None,
        typer.Option(
            help="A bounded copy of the encoder to begin with: minilm-bounded, or a folder that "
            "this command made. Its bound may be another one; a tighter bound takes fewer steps "
            "from there than from the encoder itself.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    clip: Annotated[
        float,
        typer.Option(
            help="Clip c, the largest absolute attention logit. At temperature 1, 0.97 holds four "
            "of 32 tokens to 3.99 times their share.",
            rich_help_panel=options.ATTENTION,
        ),
    ] = config.BOUNDED.logit_bound,
    clip_mode: options.ClipMode = config.BOUNDED.clip_mode,
    temperature: options.Temperature = 1.0,
    steps: Annotated[
        int, typer.Option(help="Number of optimizer steps.", rich_help_panel=options.TRAINING)
    ] = BoundingConfig.steps,
    batch_tokens: Annotated[
        int,
        typer.Option(
            help="Most tokens in a batch, padding counted.", rich_help_panel=options.TRAINING
        ),
    ] = BoundingConfig.batch_tokens,
    learning_rate: Annotated[
        float, typer.Option(help="The largest learning rate.", rich_help_panel=options.TRAINING)
    ] = BoundingConfig.learning_rate,
    max_length: Annotated[
        int,
        typer.Option(
            help="Tokens to which texts are cut. Positions beyond them are not taught.",
            rich_help_panel=options.TRAINING,
        ),
    ] = BoundingConfig.max_length,
    precision: options.Precision = BoundingConfig.precision,
    seed: Annotated[
        int,
        typer.Option(
            help="Seed of the order of the texts and of those that are held out.",
            rich_help_panel=options.TRAINING,
        ),
    ] = BoundingConfig.seed,
    out: Annotated[
        Path,
        typer.Option(
            help="The folder to make in Hugging Face layout. transformers loads it, and attnpriv "
            "train takes the first five families as --encoder.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    resume: options.Resume = False,
) -> None:
    """Teach a copy of an encoder to work under a bound on its attention.

    The copy learns from what the encoder makes of public texts, without labels. It is made once,
    and every training on it, private or not, then keeps the bound. If it is interrupted, by Ctrl-C
    or a crash, the same command with --resume continues it. Started by torchrun, several processes
    share the work.
    """
    from attnpriv.training import bound_encoder, has_begun, is_first_process

    settings = BoundingConfig(steps, batch_tokens, learning_rate, precision, max_length, seed)
    with resumable(lambda: has_begun(out)), progress_bars() as progress:
        task = progress.add_task("preparing", total=None)
        made = bound_encoder(
            encoder,
            texts,
            out,
            attention=AttentionConfig(temperature, clip, clip_mode),
            config=settings,
            start_from=start_from,
            resume=resume,
            on_step=lambda step, total, loss: progress.update(
                task, description=f"teaching, loss {loss:.3f}", completed=step, total=total
            ),
        )
    if is_first_process():
        before, after = made.before, made.after
        console.print(
            f"on public texts held out, the loss fell from {before.loss:.4g} to {after.loss:.4g}, "
            f"and the cosine distance of a text's vector from {before.cosine:.4g} to "
            f"{after.cosine:.4g}\nfolder: {out}",
            soft_wrap=True,
        )
