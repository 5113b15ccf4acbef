"""``attnpriv evaluate`` and ``certify``: what a run folder's model is worth."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table

from attnpriv.cli.options import (
    JsonOption,
    LabelColumn,
    RunArgument,
    SourceOption,
    TextColumn,
    load,
)
from attnpriv.cli.output import console, print_json, progress_bars
from attnpriv.rounding import round_up


def evaluate(
    run: RunArgument,
    data: SourceOption,
    json_: JsonOption = False,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
) -> None:
    """Score a run on rows it was not trained on: accuracy, and per class precision, recall, F1."""
    from attnpriv.audit.utility import utility
    from attnpriv.prediction import predict_probabilities
    from attnpriv.run_folder import load_run

    loaded = load_run(run)
    dataset = load(data, text_column, label_column, None, loaded.label_names)
    train_rows, held_out_rows = loaded.split(dataset)
    held_out = dataset.subset(held_out_rows)
    with progress_bars() as progress:
        task = progress.add_task("predicting", total=len(held_out))
        probabilities = predict_probabilities(
            loaded, held_out.texts, progress=lambda done, _: progress.update(task, completed=done)
        )
    result = utility(held_out.labels, probabilities, loaded.label_names)
    rows = "held-out rows of the training data" if train_rows is not None else "all rows"
    if json_:
        print_json({"run": loaded.name, "rows": rows, **asdict(result)})
        return
    table = Table("class", "rows", "precision", "recall", "F1", title=f"{loaded.name}, {rows}")
    for score in result.classes:
        values = (score.precision, score.recall, score.f1)
        table.add_row(score.label, str(score.support), *map(_interval, values))
    console.print(table)
    console.print(f"accuracy {_interval(result.accuracy)}   macro F1 {_interval(result.macro_f1)}")


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
        print_json({"run": loaded.name, **size, **certificate, "limits": LIMITS})
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
        console.print(
            "NO CERTIFICATE HOLDS WHERE c IS none: LOGITS ARE UNCLIPPED.", style="bold red"
        )
    for limit in LIMITS:
        console.print(limit, soft_wrap=True)


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
