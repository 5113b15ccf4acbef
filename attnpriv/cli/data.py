"""``attnpriv data``: what data there is, and how to look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from attnpriv.cli.options import ClassesOption, LabelColumn, SpansColumn, TextColumn, load
from attnpriv.cli.output import console
from attnpriv.data import SOURCES, load_dataset, save_dataset

data_app = typer.Typer(
    no_args_is_help=True, help="Look at the data sources, or write one to a file."
)


@data_app.command("list")
def data_list() -> None:
    """List the built-in data sources."""
    table = Table("name", "what")
    for name, what in SOURCES.items():
        table.add_row(name, what)
    console.print(table)


@data_app.command("make")
def data_make(
    source: Annotated[str, typer.Argument(help="A source, say tickets:rows=500,seed=3,tie=1.")],
    out: Annotated[Path, typer.Option(help="A new .csv, .tsv, .jsonl or .parquet file.")],
    overwrite: Annotated[bool, typer.Option(help="Replace the file if it is there.")] = False,
) -> None:
    """Write a data source to a file."""
    dataset = load_dataset(source)
    save_dataset(dataset, out, overwrite=overwrite)
    console.print(f"{len(dataset)} rows in {len(dataset.label_names)} classes: {out}")


@data_app.command("show")
def data_show(
    source: Annotated[str, typer.Argument(help="A source by name, or a file.")],
    rows: Annotated[int, typer.Option(min=0, help="Show the first rows, texts included.")] = 0,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
    classes: ClassesOption = None,
) -> None:
    """Describe a data set: size, classes, gold spans. Texts are shown only with --rows."""
    dataset = load(source, text_column, label_column, spans_column, classes=classes)
    table = Table("class", "rows", title=f"{dataset.name}: {len(dataset)} rows")
    for number, name in enumerate(dataset.label_names):
        table.add_row(name, str(dataset.labels.count(number)))
    console.print(table)
    if dataset.spans is None:
        console.print("no gold spans of personal data")
    else:
        console.print(f"{sum(map(len, dataset.spans))} gold spans of personal data")
    for text, label in zip(dataset.texts[:rows], dataset.labels, strict=False):
        console.print(f"{dataset.label_names[label]}: {text}", highlight=False)
