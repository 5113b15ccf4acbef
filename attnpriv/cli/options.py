"""Options that several commands have, and what their values mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attnpriv.config import TrainConfig
from attnpriv.data import Dataset, load_dataset
from attnpriv.errors import InputError

SourceOption = Annotated[
    str, typer.Option("--data", help="A source by name, or a CSV, TSV, JSONL or Parquet file.")
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text-column",
        help="Column of the texts: a name, or a number from 0 where no column has that name.",
    ),
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="Column of the labels, likewise.")
]
SpansColumn = Annotated[
    str | None,
    typer.Option("--spans-column", help="Column of gold spans of personal data, if any."),
]
ClassesOption = Annotated[
    int | None,
    typer.Option(
        "--classes",
        help="How many classes the labels have. Needed only where their names look like texts, "
        "a header or misspellings: it confirms that they may be published with the model.",
    ),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, made by attnpriv train or tune.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
OutOption = Annotated[Path, typer.Option(help="The run folder to make.")]
EncoderOption = Annotated[str, typer.Option(help="scratch, minilm, or a BERT or MPNet folder.")]
TrainableOption = Annotated[
    str,
    typer.Option(
        help="head, bias, last:K (blocks), lora:R (adapters of rank R), lora:R:last:K or all; "
        "default: the head of a pretrained encoder, all of one from scratch."
    ),
]
DeltaOption = Annotated[float, typer.Option(help="δ, below 1/N.")]
TemperatureOption = Annotated[float, typer.Option(help="τ, divides the clipped logits.")]
ClipOption = Annotated[str, typer.Option(help="c, the largest logit, or none.")]
ClipModeOption = Annotated[str, typer.Option(help="clamp, tanh, norm or relative.")]
ScoreOption = Annotated[str, typer.Option(help="dot_product or additive.")]
TemperatureFloorOption = Annotated[
    float | None,
    typer.Option(help="Let every head learn its τ, never below this; default: τ is fixed."),
]
PoolingOption = Annotated[str, typer.Option(help="layers, mean or cls.")]
ShareLayersOption = Annotated[
    bool, typer.Option(help="All layers of an encoder from scratch apply one block.")
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        help="Expected batch size B, which sets the sampling rate B/N; default: half of the "
        "rows for a head alone (at most 4096), else a quarter (at most 1024)."
    ),
]
MaxGradNormOption = Annotated[
    float, typer.Option(help="C, the norm each record's gradient is clipped to.")
]
ClippingOption = Annotated[
    str,
    typer.Option(help="flat cuts gradients longer than C; automatic brings every one near norm C."),
]
ClippingEngineOption = Annotated[
    str, typer.Option(help="book_keeping, or Opacus's hooks or ghost.")
]
PrecisionOption = Annotated[str, typer.Option(help="Of the encoder's passes: float32 or bfloat16.")]
MicroBatchTokensOption = Annotated[
    int, typer.Option(help="Most tokens in one pass through the encoder; bounds memory.")
]
NoiseSeedOption = Annotated[
    int | None,
    typer.Option(
        help="Makes sampling and noise repeatable, and ε void against whoever knows it: for tests."
    ),
]


def trained_part(trainable: str, encoder: str) -> str:
    """What is trained where the command does not say."""
    return trainable or ("all" if encoder == "scratch" else TrainConfig.trainable)


def parse_number(name: str, value: str) -> float | None:
    """A number, or None for ``none``."""
    if value == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise InputError(f"expected {name} as a number, or none, got {value!r}") from None


def parse_train_size(value: str) -> float:
    """A number of rows where there is no decimal point, else a share."""
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        raise InputError(
            f"expected train-size as a share below 1 or a number of rows, got {value!r}"
        ) from None


def load(
    source: str,
    text_column: str | None,
    label_column: str | None,
    spans_column: str | None,
    label_names: tuple[str, ...] | None = None,
    classes: int | None = None,
) -> Dataset:
    """The data behind a source or a file; columns are names or numbers."""
    return load_dataset(
        source,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        label_names=label_names,
        classes=classes,
    )
