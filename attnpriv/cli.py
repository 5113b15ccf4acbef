"""The ``attnpriv`` command: data, train, evaluate, certify, audit.

Exit codes: 0 done, 1 a gate failed, 2 bad input or usage (one line on stderr), 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from attnpriv import __version__
from attnpriv.config import AttentionConfig, ClipMode, Pooling, PrivacyConfig, Score, TrainConfig
from attnpriv.data import SOURCES, Dataset, load_dataset, save_dataset
from attnpriv.errors import AttnprivError, InputError
from attnpriv.rounding import round_up

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(
    no_args_is_help=True, help="Look at the data sources, or write one to a file."
)
app.add_typer(data_app, name="data")
console = Console()
progress_console = Console(stderr=True)

SourceOption = Annotated[
    str, typer.Option("--data", help="A source by name, or a CSV, TSV, JSONL or Parquet file.")
]
TextColumn_ = Annotated[
    str | None,
    typer.Option("--text-column", help="Column of the texts: a name, or a number from 0."),
]
LabelColumn = Annotated[
    str | None, typer.Option("--label-column", help="Column of the labels, likewise.")
]
SpansColumn = Annotated[
    str | None,
    typer.Option("--spans-column", help="Column of gold spans of personal data, if any."),
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, made by attnpriv train.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def main() -> None:
    """Run the command, and turn an expected error into one line and exit code 2."""
    try:
        app()
    except AttnprivError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was written\n")
        sys.exit(130)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Train attention models under differential privacy, and audit what they give away."""
    if version:
        console.print(f"attnpriv {__version__}")
        raise typer.Exit


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
    text_column: TextColumn_ = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
) -> None:
    """Describe a data set: size, classes, gold spans. Texts are shown only with --rows."""
    dataset = _load(source, text_column, label_column, spans_column)
    table = Table("class", "rows", title=f"{dataset.name}: {len(dataset)} rows")
    for number, name in enumerate(dataset.label_names):
        table.add_row(name, str(dataset.labels.count(number)))
    console.print(table)
    if dataset.spans is None:
        console.print("no gold spans of personal data")
    else:
        console.print(f"{sum(map(len, dataset.spans))} gold spans of personal data")
    for text, label in zip(dataset.texts[:rows], dataset.labels, strict=False):
        console.print(f"{dataset.label_names[label]}: {text}", markup=False, highlight=False)


@app.command()
def train(
    data: SourceOption,
    epsilon: Annotated[str, typer.Option(help="The target ε, or none to train without privacy.")],
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    encoder: Annotated[str, typer.Option(help="scratch, minilm, or a folder.")] = "scratch",
    trainable: Annotated[
        str,
        typer.Option(
            help="head, last:K or all; default: the head of a pretrained encoder, all of one "
            "from scratch."
        ),
    ] = "",
    delta: Annotated[float, typer.Option(help="δ, below 1/N.")] = PrivacyConfig.delta,
    temperature: Annotated[float, typer.Option(help="τ, divides the clipped logits.")] = 1.0,
    clip: Annotated[float | None, typer.Option(help="c, the largest logit; default: none.")] = None,
    clip_mode: Annotated[str, typer.Option(help="clamp, tanh or norm.")] = "clamp",
    score: Annotated[str, typer.Option(help="dot_product or additive.")] = "dot_product",
    temperature_floor: Annotated[
        float | None,
        typer.Option(help="Let every head learn its τ, never below this; default: τ is fixed."),
    ] = None,
    pooling: Annotated[str, typer.Option(help="layers, mean or cls.")] = "layers",
    steps: Annotated[
        int | None, typer.Option(help="Optimizer steps; default: 200 for a head alone, else 100.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Expected batch size B, which sets the sampling rate B/N; default: half of the "
            "rows for a head alone (at most 4096), else a quarter (at most 1024)."
        ),
    ] = None,
    max_grad_norm: Annotated[
        float, typer.Option(help="C, the norm each record's gradient is clipped to.")
    ] = PrivacyConfig.max_grad_norm,
    learning_rate: Annotated[
        float, typer.Option(help="Of the encoder.")
    ] = TrainConfig.learning_rate,
    head_learning_rate: Annotated[
        float, typer.Option(help="Of the head.")
    ] = TrainConfig.head_learning_rate,
    accountant: Annotated[str, typer.Option(help="prv or rdp.")] = "prv",
    seed: Annotated[int, typer.Option(help="Of the split and the initial weights.")] = 0,
    noise_seed: Annotated[
        int | None,
        typer.Option(
            help="Makes sampling and noise repeatable, and ε void against whoever knows it: "
            "for tests."
        ),
    ] = None,
    train_size: Annotated[
        float, typer.Option(help="Rows to train on: a share below 1, or a number.")
    ] = TrainConfig.train_size,
    text_column: TextColumn_ = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
) -> None:
    """Train a text classifier and write its run folder. Ctrl-C stops early and keeps the work."""
    from attnpriv.training import train as train_model

    attention = AttentionConfig(
        temperature, clip, cast(ClipMode, clip_mode), cast(Score, score), temperature_floor
    )
    config = TrainConfig(
        trainable=trainable or ("all" if encoder == "scratch" else "head"),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        head_learning_rate=head_learning_rate,
        seed=seed,
        train_size=train_size,
    )
    target = _parse_epsilon(epsilon)
    privacy = None
    if target is not None:
        privacy = PrivacyConfig(target, delta, max_grad_norm, cast(Any, accountant), noise_seed)
    dataset = _load(data, text_column, label_column, spans_column)
    with _progress() as progress:
        task = progress.add_task("preparing", total=None)

        def on_step(step: int, total: int, spent: float | None) -> None:
            stage = "training" if spent is None else f"training, ε ≤ {round_up(spent, 2)} spent"
            progress.update(task, description=stage, completed=step, total=total)

        result = train_model(
            dataset,
            out,
            encoder=encoder,
            attention=attention,
            config=config,
            privacy=privacy,
            pooling=cast(Pooling, pooling),
            on_step=on_step,
        )
    _print_training(result.card, out, result.skipped_records)
    if result.interrupted:
        raise typer.Exit(130)


@app.command()
def evaluate(
    run: RunArgument,
    data: SourceOption,
    json_: JsonOption = False,
    text_column: TextColumn_ = None,
    label_column: LabelColumn = None,
) -> None:
    """Score a run on rows it was not trained on: accuracy, and per class precision, recall, F1."""
    from attnpriv.audit.utility import utility
    from attnpriv.prediction import predict_probabilities
    from attnpriv.run_folder import load_run

    loaded = load_run(run)
    dataset = _load(data, text_column, label_column, None, loaded.label_names)
    train_rows, held_out_rows = loaded.split(dataset)
    held_out = dataset.subset(held_out_rows)
    with _progress() as progress:
        task = progress.add_task("predicting", total=len(held_out))
        probabilities = predict_probabilities(
            loaded, held_out.texts, progress=lambda done, _: progress.update(task, completed=done)
        )
    result = utility(held_out.labels, probabilities, loaded.label_names)
    rows = "held-out rows of the training data" if train_rows is not None else "all rows"
    if json_:
        _print_json({"run": loaded.name, "rows": rows, **asdict(result)})
        return
    table = Table("class", "rows", "precision", "recall", "F1", title=f"{loaded.name}, {rows}")
    for score in result.classes:
        values = (score.precision, score.recall, score.f1)
        table.add_row(score.label, str(score.support), *map(_interval, values))
    console.print(table)
    console.print(f"accuracy {_interval(result.accuracy)}   macro F1 {_interval(result.macro_f1)}")


@app.command()
def certify(
    run: RunArgument,
    keys: Annotated[int, typer.Option(help="n, the keys that a row sees, special ones too.")] = 32,
    sensitive: Annotated[int, typer.Option(help="k of them, say the tokens of a name.")] = 4,
    json_: JsonOption = False,
) -> None:
    """Print, per layer and head, what the attention weights can never exceed, on any input."""
    from attnpriv.certificate import LIMITS, worst_case
    from attnpriv.certificate import certify as certify_model
    from attnpriv.run_folder import load_run

    loaded = load_run(run)
    heads = certify_model(loaded.model, keys, sensitive)
    worst = worst_case(heads)
    if json_:
        certificate = {"worst": asdict(worst), "heads": [asdict(head) for head in heads]}
        size = {"keys": keys, "sensitive": sensitive}
        _print_json({"run": loaded.name, **size, **certificate, "limits": LIMITS})
        return
    bounds = ("weight ≤", "mass ≤", "lift ≤", "TV ≤", "selection ε")
    title = f"{loaded.name}: a row of {keys} keys, {sensitive} of them sensitive"
    table = Table("layer", "head", "c", "τ", *bounds, title=title)
    for head, following in zip(heads, (*heads[1:], None), strict=True):
        last = following is None or following.layer != head.layer
        table.add_row(str(head.layer), str(head.head), *_bounds(head), end_section=last)
    table.add_row("worst", "", *_bounds(worst))
    console.print(table)
    if worst.logit_bound is None:
        console.print("[bold red]NO CERTIFICATE HOLDS WHERE c IS none: LOGITS ARE UNCLIPPED.[/]")
    for limit in LIMITS:
        console.print(limit, soft_wrap=True)


@app.command()
def audit(
    run: RunArgument,
    data: SourceOption,
    out: Annotated[Path, typer.Option(help="Folder for audit.json and report.html.")],
    against: Annotated[
        list[Path] | None, typer.Option(help="Another run to audit beside it; may be repeated.")
    ] = None,
    documents: Annotated[int, typer.Option(help="Most held-out rows to audit.")] = 1200,
    seed: Annotated[int, typer.Option(help="Of samples, nulls and bootstraps.")] = 0,
    show_text: Annotated[
        bool, typer.Option(help="Show words in the token heatmaps; personal data stays hidden.")
    ] = False,
    json_: JsonOption = False,
    text_column: TextColumn_ = None,
    label_column: LabelColumn = None,
    spans_column: SpansColumn = None,
) -> None:
    """Audit runs side by side: utility, attention, attribution, membership, robustness."""
    from attnpriv.audit.runner import AuditOptions, audit_runs
    from attnpriv.report import headline, write_report
    from attnpriv.run_folder import load_run
    from attnpriv.sensitive import PresidioDetector

    loaded = [load_run(path) for path in (run, *(against or []))]
    dataset = _load(data, text_column, label_column, spans_column, loaded[0].label_names)
    options = AuditOptions(documents=documents, seed=seed)
    with _progress() as progress:
        tasks: dict[str, Any] = {}

        def on_stage(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.update(tasks[stage], completed=done)

        result = audit_runs(loaded, dataset, PresidioDetector(), options, on_stage)
    json_path, html_path = write_report(result, out, show_text)
    if json_:
        sys.stdout.write(json_path.read_text(encoding="utf-8"))
        return
    columns, rows = headline(result)
    table = Table(*columns, title=f"{dataset.name}, held-out rows")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print(f"report: {html_path}\ndata:   {json_path}", soft_wrap=True)


def _load(
    source: str,
    text_column: str | None,
    label_column: str | None,
    spans_column: str | None,
    label_names: tuple[str, ...] | None = None,
) -> Dataset:
    return load_dataset(
        source,
        text_column=_column(text_column),
        label_column=_column(label_column),
        spans_column=_column(spans_column),
        label_names=label_names,
    )


def _column(value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdecimal() else value


def _parse_epsilon(value: str) -> float | None:
    if value == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise InputError(f"expected epsilon as a number, or none, got {value!r}") from None


@contextmanager
def _progress() -> Iterator[Progress]:
    """Bars on stderr, so that stdout stays for results."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=progress_console, transient=True) as progress:
        yield progress


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _print_training(card: dict[str, Any], out: Path, skipped_records: int) -> None:
    privacy = card["privacy"]
    if privacy is not None:
        console.print(
            f"q = {privacy['sample_rate']:.4g} (expected batch {privacy['expected_batch_size']} of "
            f"{card['data']['rows_train']} rows), {privacy['steps']} steps, "
            f"σ = {privacy['noise_multiplier']:.4g}, C = {privacy['max_grad_norm']:g}"
        )
    for warning in card["warnings"]:
        console.print(f"[bold red]{warning}[/]")
    console.print(card["statement"])
    held_out = card["metrics"]["held_out"]
    console.print(
        f"held-out accuracy {held_out['accuracy']:.3f} on {held_out['rows']} rows "
        "(not covered by ε)"
    )
    if skipped_records:
        console.print(
            f"{skipped_records} gradients were not finite and were zeroed (not covered by ε)"
        )
    console.print(f"run folder: {out}", soft_wrap=True)


def _bounds(head: Any) -> list[str]:
    """c, τ and the bounds of a certificate, these rounded up."""
    bounds = (
        (head.largest_weight, 4),
        (head.mass_bound, 4),
        (head.lift_bound, 2),
        (head.total_variation, 4),
        (head.selection_epsilon, 3),
    )
    clip = "none" if head.logit_bound is None else f"{head.logit_bound:g}"
    shown = ("none" if bound is None else round_up(bound, digits) for bound, digits in bounds)
    return [clip, f"{head.temperature:.5g}", *shown]


def _interval(estimate: Any) -> str:
    if estimate.value is None:
        return "undefined"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
