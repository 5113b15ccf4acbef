"""Options that several commands have, each declared once, and how their values are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from attnpriv import config
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.errors import InputError
from attnpriv.jobs import Executor, ProcessPool, RayCluster

# The panels of --help. What belongs to none of them is listed first.
DATA, MODEL, ATTENTION = "Data", "Model", "Attention"
PRIVACY, TRAINING, OUTPUT = "Privacy", "Training", "Output"
SCRATCH = config.SCRATCH  # the encoder if the command line names none


def number_or_none(value: str, option: str | None = None) -> float | None:
    """A number, or None for ``none``.

    Args:
        value: as it was given.
        option: its name, where typer does not know it: outside of a parser.

    Raises:
        typer.BadParameter: the value is neither.
    """
    if value == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(
            f"expected a number or none, got {value!r}", param_hint=option
        ) from None


def rows_or_share(value: str | float) -> float:
    """A number of rows if there is no decimal point, else a share; typer passes defaults too.

    Raises:
        typer.BadParameter: the value is no number.
    """
    try:
        return int(value) if str(value).isdecimal() else float(value)
    except ValueError:
        raise typer.BadParameter(
            f"expected a share below 1, such as 0.8, or a number of rows, got {value!r}"
        ) from None


def trained_part(trainable: str | None, encoder: str) -> str:
    """The part of the model to train: what was given, or else what suits the encoder."""
    return trainable or ("all" if encoder in (SCRATCH, config.DETECTOR) else TrainConfig.trainable)


def executor_of(processes: int | None, on: str | None) -> Executor | None:
    """Who does the work: None, this process.

    Raises:
        InputError: both were given, or a value is not possible.
    """
    if on is None:
        pool = ProcessPool(1 if processes is None else processes)
        return None if pool.count == 1 else pool
    if processes is not None:
        raise InputError("--processes cannot be used with --on: a Ray cluster has its own")
    return RayCluster(None if on == "ray" else on)


def given(context: typer.Context, names: Iterable[str]) -> list[str]:
    """Those of the options that somebody gave on the command line."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return [name for name, source in sources.items() if source and source.name != "DEFAULT"]


def attention_of(context: typer.Context, encoder: str, **values: Any) -> AttentionConfig | None:
    """The attention that the options ask for; None, where none was given, leaves it to the encoder.

    Of a bounded encoder, what is not given is as it was taught; of ``words``, as by default.

    Args:
        context: of the command.
        encoder: what ``--encoder`` names.
        **values: of the options on attention, by the names in ``AttentionConfig``.
    """
    chosen = {name: values[name] for name in given(context, values)}
    if not chosen:
        return None
    from attnpriv.models.pretrained import own_attention

    return replace(own_attention(encoder), **chosen)


Run = Annotated[
    Path,
    typer.Argument(
        help="A run folder, as attnpriv train and attnpriv tune make it.", show_default=False
    ),
]

# --- Data -------------------------------------------------------------------------------------

Data = Annotated[
    str,
    typer.Option(
        help="The data: a CSV, TSV, JSONL or Parquet file of texts, an NPZ file of images, a "
        "folder of images with labels.csv or of IDX files, or the name of a built-in source (see "
        "attnpriv data list).",
        rich_help_panel=DATA,
    ),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the texts: its name, or its number from 0. Default: the column named text; "
        "without names, in a file of two columns, the one with more distinct values.",
        rich_help_panel=DATA,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the labels: its name, or its number from 0. Default: the column named "
        "label; without names, in a file of two columns, the one with fewer distinct values.",
        rich_help_panel=DATA,
    ),
]
SpansColumn = Annotated[
    str | None,
    typer.Option(
        help="Column that says where personal data is in each text (gold spans), by name or "
        "number. Default: the column named spans, if there is one.",
        rich_help_panel=DATA,
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(
        help="Number of classes. Needed only if the labels are refused because they look like "
        "texts, a header or misspellings: the number confirms that the names of the classes may "
        "be published with the model.",
        rich_help_panel=DATA,
    ),
]
TrainSize = Annotated[
    float,
    typer.Option(
        parser=rows_or_share,
        metavar="SHARE|ROWS",
        help="Rows to train on; the others are held out. A share below 1 picks rows by their "
        "texts, so that they are recognised even if the file changes later; a whole number picks "
        "that many rows at random.",
        rich_help_panel=DATA,
    ),
]

# --- Model ------------------------------------------------------------------------------------

Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        "--model",
        help="The encoder to start from: scratch (small, with random weights), minilm "
        "(pretrained), words (minilm's tokens one by one, without context: attnpriv certify "
        "--texts then says how many tokens of a text can change without changing the answer), "
        "minilm-bounded (minilm, taught to work under a bound on its attention: four "
        "of 32 tokens get at most 3.99 times their share), or a folder with a pretrained BERT, "
        "DistilBERT, MPNet, RoBERTa or XLM-RoBERTa, or with what attnpriv encoder bound made. "
        "For images, with random weights: vit, a small vision transformer, which scratch means "
        "too; or cnn, cnn-se or cnn-cbam, a small convolutional network without gates, with gates "
        "on channels, or on channels and places; or scattering, fixed wavelets without attention, "
        "on which a head alone learns; or detector, which finds the digits in scenes.",
        show_default="scratch",
        rich_help_panel=MODEL,
    ),
]
Trainable = Annotated[
    str | None,
    typer.Option(
        help="What is trained: head, bias (the head and every bias), last:K (and the last K "
        "blocks), lora:R (and adapters of rank R), lora:R:last:K (and adapters of the last K "
        "blocks), or all. Default: all with a scratch encoder and a detector, else head.",
        rich_help_panel=MODEL,
    ),
]
Pooling = Annotated[
    config.Pooling | None,
    typer.Option(
        help="What the head reads: the mean over all tokens, the cls token, or layers, the "
        "means after a third, two thirds and all of the blocks. Of images, places reads each "
        "patch apart.",
        show_default="layers; of images, places",
        rich_help_panel=MODEL,
    ),
]
ShareLayers = Annotated[
    bool,
    typer.Option(
        "--share-layers/--no-share-layers",
        help="Let all layers of a scratch encoder share one block: fewer weights, and no less "
        "computation.",
        rich_help_panel=MODEL,
    ),
]

Normalise = Annotated[
    bool,
    typer.Option(
        "--normalise/--no-normalise",
        help="Bring texts into one spelling before they are read: remove characters that are not "
        "seen, apply NFKC, and replace letters of other scripts that look like ASCII. The run "
        "keeps it, so that evaluate, audit and the server do the same.",
        rich_help_panel=MODEL,
    ),
]

Heads = Annotated[
    int | None,
    typer.Option(
        help="Number of queries of encoder words, each over its part of the vectors; certified "
        "numbers of edits are then lower bounds. Default: 1, for which they are exact.",
        min=1,
        rich_help_panel=MODEL,
    ),
]

# --- Attention --------------------------------------------------------------------------------

Temperature = Annotated[
    float,
    typer.Option(
        help="Temperature τ, by which the clipped logits are divided.", rich_help_panel=ATTENTION
    ),
]
Clip = Annotated[
    float | None,
    typer.Option(
        parser=number_or_none,
        metavar="NUMBER|none",
        help="Clip c, the largest absolute attention logit. Without one, no bound on the attention "
        "weights is certified. A bounded encoder brings its own.",
        show_default="none",
        rich_help_panel=ATTENTION,
    ),
]
ClipMode = Annotated[
    config.ClipMode,
    typer.Option(
        help="How the clip is enforced: clamp cuts logits at ±c, tanh bends them smoothly, norm "
        "shortens the queries and keys behind them, relative raises logits that are more than 2c "
        "below the largest of their row.",
        rich_help_panel=ATTENTION,
    ),
]
Score = Annotated[
    config.Score,
    typer.Option(
        help="How logits are computed: as the dot product of query and key, or additive, from "
        "their sum and a learned vector.",
        rich_help_panel=ATTENTION,
    ),
]
TemperatureFloor = Annotated[
    float | None,
    typer.Option(
        help="Let every head learn its own temperature, never below this. Default: all heads keep "
        "--temperature.",
        rich_help_panel=ATTENTION,
    ),
]

# --- Privacy ----------------------------------------------------------------------------------

Delta = Annotated[
    float,
    typer.Option(
        help="The δ of the guarantee; must be below 1/N for N rows.", rich_help_panel=PRIVACY
    ),
]
MaxGradNorm = Annotated[
    float,
    typer.Option(
        help="C, the norm to which the gradient of each record is clipped.",
        rich_help_panel=PRIVACY,
    ),
]
Clipping = Annotated[
    config.Clipping,
    typer.Option(
        help="How gradients are clipped: flat shortens those longer than C, automatic brings "
        "every one near norm C.",
        rich_help_panel=PRIVACY,
    ),
]
ClippingEngine = Annotated[
    config.ClippingEngine,
    typer.Option(
        help="What computes the clipped gradients: attnpriv's book_keeping, or Opacus's hooks or "
        "ghost. They agree, and differ in time, memory and the layers they support.",
        rich_help_panel=PRIVACY,
    ),
]
NoiseSeed = Annotated[
    int | None,
    typer.Option(
        help="For tests only: makes sampling and noise repeatable, which voids ε against anyone "
        "who knows or guesses the seed.",
        rich_help_panel=PRIVACY,
    ),
]

# --- Training ---------------------------------------------------------------------------------

Steps = Annotated[
    int | None,
    typer.Option(
        help="Number of optimizer steps. Default: 200 if only the head is trained, else 100.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        help="Expected batch size B: each of the N rows joins a batch with probability B/N. "
        "Default: half of the rows if only the head is trained (at most 4096), else a quarter (at "
        "most 1024).",
        rich_help_panel=TRAINING,
    ),
]
LearningRate = Annotated[
    float, typer.Option(help="Learning rate of the encoder.", rich_help_panel=TRAINING)
]
HeadLearningRate = Annotated[
    float, typer.Option(help="Learning rate of the head.", rich_help_panel=TRAINING)
]
Precision = Annotated[
    config.Precision,
    typer.Option(
        help="Number format of the encoder's forward and backward passes.",
        rich_help_panel=TRAINING,
    ),
]
MicroBatchTokens = Annotated[
    int,
    typer.Option(
        help="Most tokens in one pass through the encoder. Lower it to save memory; results "
        "change by rounding only.",
        rich_help_panel=TRAINING,
    ),
]

AugmentationKind = Annotated[
    str | None,
    typer.Option(
        "--augmentation",
        metavar="deletion:RATE|shift:PIXELS",
        help="Also train on copies of each record: without each of its tokens with that chance, "
        "or, of images, moved by up to so many pixels. The gradients of a record and its copies "
        "are averaged before they are clipped, so ε stays what it is.",
        rich_help_panel=TRAINING,
    ),
]
AugmentationMultiplicity = Annotated[
    int | None,
    typer.Option(
        help="With --augmentation: the number of each record and its copies. Time grows with it. "
        "Default: 4.",
        rich_help_panel=TRAINING,
    ),
]

# --- Who does the work --------------------------------------------------------------------------

ProcessCount = Annotated[
    int | None,
    typer.Option(
        "--processes",
        help="Number of processes of this machine that share the work, each with one thread. "
        "Results are bit-identical for any number, but for noise, where any is drawn. Default: 1.",
    ),
]
On = Annotated[
    str | None,
    typer.Option(
        metavar="ray|ray://HOST:PORT",
        help="Have the work done by a Ray cluster: the one at this address, or, with ray alone, "
        "the one that RAY_ADDRESS names or this machine is part of, or else one that is started "
        "for the command. Its machines receive the data (docs/more-machines.md). It needs the "
        "extra ray.",
    ),
]

# --- Output -----------------------------------------------------------------------------------

RunOut = Annotated[
    Path, typer.Option("--out", help="The run folder to make.", rich_help_panel=OUTPUT)
]
Detection = Annotated[
    Path | None,
    typer.Option(
        help="TOML file: what counts as personal data beside what is found anyway "
        "(docs/detection.md).",
        rich_help_panel=DATA,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue what was interrupted with the same --out and the same options.",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT),
]
