"""``attnpriv evaluate``: what a run folder's model is worth."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from attnpriv.cli import options
from attnpriv.cli.output import console, print_json, warn, warn_of_unknown
from attnpriv.errors import InputError
from attnpriv.progress import progress_bars

if TYPE_CHECKING:
    from attnpriv.data.records import Dataset
    from attnpriv.data.splits import Split
    from attnpriv.runs.folder import Run


def evaluate(
    run: options.Run,
    data: options.Data,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    all_rows: Annotated[
        bool,
        typer.Option(
            "--all-rows",
            help="Also score the rows that were, or may have been, trained on.",
            rich_help_panel=options.DATA,
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Score a run: accuracy, and the precision, recall and F1 of each class.

    Only rows that were not trained on are scored; if the data is not the training data, only rows
    that cannot have been trained on.
    """
    from attnpriv.audit.utility import utility
    from attnpriv.data import load_dataset
    from attnpriv.runs.folder import load_run
    from attnpriv.runs.prediction import predict_probabilities
    from attnpriv.tasks import CLASSIFY

    loaded = load_run(run, detectors=True)
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        label_names=loaded.label_names,
        kind=loaded.kind,
    )
    if dataset.detects != (found := loaded.model.task is not CLASSIFY):
        wanted = "data with objects" if found else "data with one class a record"
        raise InputError(f"expected {wanted} for {loaded.name}, got {dataset.name}")
    numbers, rows = _rows_to_score(loaded.split(dataset), all_rows)
    scored = dataset.subset(numbers)
    if found:
        _print_objects(loaded, scored, rows, len(dataset) - len(scored), json_)
        return
    warn_of_unknown(loaded, scored)
    with progress_bars() as progress:
        task = progress.add_task("predicting", total=len(scored))
        probabilities = predict_probabilities(
            loaded, scored.records, progress=lambda done, _: progress.update(task, completed=done)
        )
    result = utility(scored.labels, probabilities, loaded.label_names)
    if json_:
        left_out = len(dataset) - len(scored)
        print_json({"run": loaded.name, "rows": rows, "rows_left_out": left_out, **asdict(result)})
        return
    table = Table("class", "rows", "precision", "recall", "F1", title=f"{loaded.name}, {rows}")
    for score in result.classes:
        values = (score.precision, score.recall, score.f1)
        table.add_row(score.label, str(score.support), *map(_interval, values))
    console.print(table)
    console.print(f"accuracy {_interval(result.accuracy)}   macro F1 {_interval(result.macro_f1)}")


def _print_objects(run: Run, scored: Dataset, rows: str, left_out: int, json_: bool) -> None:
    """How well a detector finds the objects of these images."""
    import torch

    from attnpriv.detection import DETECT, average_precision
    from attnpriv.estimates import wilson
    from attnpriv.runs.prediction import predict_objects

    targets = torch.from_numpy(scored.targets)
    with progress_bars() as progress:
        task = progress.add_task("detecting", total=len(scored))
        outputs = predict_objects(
            run, scored.records, lambda done, _: progress.update(task, completed=done)
        )
    precision = average_precision([*DETECT.answer(outputs)], [*targets])
    accuracy = wilson(int(DETECT.correct(outputs, targets).sum()), len(scored))
    if json_:
        found = {**asdict(precision), "accuracy": asdict(accuracy)}
        print_json({"run": run.name, "rows": rows, "rows_left_out": left_out, **found})
        return
    table = Table("class", "objects", "average precision", title=f"{run.name}, {rows}")
    for label, count, value in zip(
        run.label_names, precision.objects, precision.classes, strict=True
    ):
        table.add_row(label, str(count), "undefined" if value is None else f"{value:.3f}")
    console.print(table)
    mean = "undefined" if precision.mean is None else f"{precision.mean:.3f}"
    console.print(f"mAP@50 {mean}   images without an error {_interval(accuracy)}")


def _rows_to_score(split: Split, all_rows: bool) -> tuple[list[int], str]:
    """The rows to score and what they are, with a warning on stderr if that is in doubt."""
    doubtful, others = len(split.unknown), "this is not the training data: "
    if split.held_out and not (all_rows and (split.trained or doubtful)):
        if split.trained:
            return split.held_out, "held-out rows of the training data"
        if doubtful:
            warn(
                f"{others}{doubtful} rows are left out because they may have been trained on; "
                "--all-rows scores them too"
            )
        return split.held_out, "rows that were not trained on"
    everything = sorted((*split.trained, *split.held_out, *split.unknown))
    if split.trained:
        return everything, "all rows of the training data, most of which were trained on"
    warn(f"{others}{doubtful} of {len(everything)} rows may have been trained on")
    return everything, "all rows, some of which may have been trained on"


def _interval(estimate: Any) -> str:
    if estimate.value is None:
        return "undefined"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
