"""``attnpriv certify``: what is proved of a run's attention, or of its answers to texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from attnpriv.audit.robustness import EDITS
from attnpriv.cli import options
from attnpriv.cli.output import console, print_json
from attnpriv.errors import InputError
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.certified import CertifiedShare
    from attnpriv.models.edits import EditRadii
    from attnpriv.runs.folder import Run

USUAL_KEYS = 32  # of a text
VOTES = "Certify by a vote"
OF_VOTES = ("draws", "seed", "out", "resume")
LIMITS_OF_EDITS = (
    "A radius is proved for every choice of so many tokens, places and words of the vocabulary.",
    "A token is a word or a piece of one: a misspelt or joined word can be several.",
    "It does not say that the answer is right, nor that an edited text means the same.",
)


def certify(
    context: typer.Context,
    run: options.Run,
    keys: Annotated[
        int | None,
        typer.Option(
            help="Number n of tokens that each token sees, special tokens included; of images, the "
            "number of patches.",
            show_default="32; of images, all patches",
        ),
    ] = None,
    sensitive: Annotated[
        int, typer.Option(help="Number k of sensitive ones among them, say the tokens of a name.")
    ] = 4,
    texts: Annotated[
        str | None,
        typer.Option(
            help="Certify the answers to these texts instead, for a run with --encoder words or "
            "with --deletion: a file with one text a line that ends in .txt, or data with labels "
            "as attnpriv train --data takes it.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    deletion: Annotated[
        float | None,
        typer.Option(
            metavar="RATE",
            help="With --texts, for any encoder: answer by a vote over copies of the text from "
            "which each token is deleted with this chance, and certify the vote.",
            rich_help_panel=VOTES,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Number of copies that vote.", rich_help_panel=VOTES)
    ] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the deletions.", rich_help_panel=VOTES)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file for the result. Until it is there, finished texts are kept beside "
            "it, so that --resume can continue.",
            rich_help_panel=VOTES,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue an unfinished --out.", rich_help_panel=VOTES)
    ] = False,
    show_texts: Annotated[
        bool,
        typer.Option(
            "--show-texts",
            help="With --texts: print the texts as well.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    json_: options.Json = False,
) -> None:
    """Print what is proved of a run, whatever anybody writes.

    By default, what the attention weights of each layer and head can never exceed. With --texts,
    for each text how many of its tokens can be substituted, deleted or inserted without changing
    the answer, or, with --deletion, the answer of a vote.
    """
    from attnpriv.cli.votes import print_votes
    from attnpriv.runs.deletion import Deletion
    from attnpriv.runs.folder import load_run

    loaded = load_run(run, detectors=True)
    if texts is None:
        given = ("text_column", "label_column", "deletion", "show_texts")
        _refuse(context, given, "without --texts")
        _refuse(context, OF_VOTES, "without --texts and --deletion")
        if not loaded.model.attention_shape[0]:
            _print_gates(loaded, _keys(loaded) if keys is None else keys, sensitive, json_)
            return
        _print_heads(loaded, _keys(loaded) if keys is None else keys, sensitive, json_)
        return
    _refuse(context, ("keys", "sensitive"), "with --texts")
    read, labels = _read(loaded, texts, text_column, label_column)
    if deletion is None:
        _refuse(context, OF_VOTES, "without --deletion")
        _print_edits(loaded, read, labels, show_texts, json_)
        return
    _refuse(context, ("show_texts",), "with --deletion")
    print_votes(loaded, read, labels, Deletion(deletion, draws, seed), out, resume, json_)


def _keys(run: Run) -> int:
    """How many keys a row has where nobody says it: every image has the same number of patches."""
    from attnpriv.models.shapes import ImageShape

    config = run.model.config
    return config.keys if isinstance(config, ImageShape) else USUAL_KEYS


def _refuse(context: typer.Context, names: tuple[str, ...], where: str) -> None:
    for name in options.given(context, names):
        raise InputError(f"--{name.replace('_', '-')} cannot be used {where}: leave it out")


def _read(
    run: Run, source: str, text_column: str | None, label_column: str | None
) -> tuple[list[str], list[int] | None]:
    """The texts, and their labels if there are any."""
    from attnpriv.data import load_dataset

    if not source.lower().endswith(".txt"):
        dataset = load_dataset(
            source,
            text_column=text_column,
            label_column=label_column,
            label_names=run.label_names,
            kind="text",
        )
        return list(dataset.records), list(dataset.labels)
    try:
        lines = Path(source).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {source}: expected a file of texts in UTF-8") from error
    texts = [line.removesuffix("\r") for line in lines]
    if not texts[-1]:
        texts.pop()
    if not texts:
        raise InputError(f"{source}: expected at least one text, got none")
    return texts, None


def _print_edits(
    run: Run, texts: list[str], labels: list[int] | None, show_texts: bool, json_: bool
) -> None:
    from attnpriv.audit.certified import certified_shares
    from attnpriv.runs.edits import certify_texts

    radii = certify_texts(run, texts)
    right = [True] * len(radii)
    if labels is not None:
        right = [each.label == label for each, label in zip(radii, labels, strict=True)]
    # Every right answer withstands no edit at all: that share is the accuracy.
    shares = certified_shares(radii, right, (0, *EDITS) if labels is not None else EDITS)
    if json_:
        listed = [{**asdict(each), "label": run.label_names[each.label]} for each in radii]
        if show_texts:
            listed = [{**row, "text": text} for row, text in zip(listed, texts, strict=True)]
        certified = [asdict(share) for share in shares]
        limits = {"limits": LIMITS_OF_EDITS}
        print_json({"run": run.name, "texts": listed, "certified": certified, **limits})
        return
    console.print(_edits_table(run, radii, texts if show_texts else None))
    what = "answered alike" if labels is None else "answered rightly"
    print_shares(shares, what)
    for limit in LIMITS_OF_EDITS:
        console.print(limit, soft_wrap=True)


def print_shares(shares: Sequence[CertifiedShare], what: str) -> None:
    """The certified shares of texts that are answered as ``what`` says."""
    console.print(f"share of the texts that are {what}, whatever is edited:")
    table = Table("edits", "substitutions", "deletions", "insertions", "any edits")
    for share in shares:
        kinds = share.substitutions, share.deletions, share.insertions, share.any_edits
        table.add_row(str(share.edits), *(f"{100 * (each.value or 0):.1f} %" for each in kinds))
    console.print(table)


def _edits_table(run: Run, radii: list[EditRadii], texts: list[str] | None) -> Table:
    columns = ["text", "label", "substitutions", "deletions", "insertions", "any edits"]
    title = f"{run.name}: how many edits leave the answer as it is"
    table = Table(*columns, *(["", "text"] if texts else [""]), title=title)
    for number, each in enumerate(radii, start=1):
        numbers = (each.substitutions, each.deletions, each.insertions, each.edits)
        end = ["as far as it is read" if each.filled else ""]
        words = [texts[number - 1]] if texts else []
        table.add_row(str(number), run.label_names[each.label], *map(str, numbers), *end, *words)
    return table


def _print_heads(run: Run, keys: int, sensitive: int, json_: bool) -> None:
    from attnpriv.certificate import LIMITS, worst_case
    from attnpriv.certificate import certify as certify_model

    heads = certify_model(run.model, keys, sensitive)
    worst = worst_case(heads)
    if json_:
        certificate = {"worst": asdict(worst), "heads": [asdict(head) for head in heads]}
        size = {"keys": keys, "sensitive": sensitive}
        print_json({"run": run.name, **size, **certificate, "limits": LIMITS})
        return
    bounds = ("weight ≤", "mass ≤", "lift ≤", "TV ≤", "selection ε")
    title = f"{run.name}: a row of {keys} keys, {sensitive} of them sensitive"
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


def _print_gates(run: Run, keys: int, sensitive: int, json_: bool) -> None:
    from attnpriv.certificate import GATE_LIMITS, certify_gates

    gates = certify_gates(run.model, keys, sensitive, run.model.config.dim)
    if not gates:
        raise InputError(
            f"expected a model with attention or gates, got {run.name!r}, which has neither: "
            f"{run.model.config.encoder}"
        )
    if json_:
        size = {"keys": keys, "sensitive": sensitive}
        listed = [asdict(gate) for gate in gates]
        print_json({"run": run.name, **size, "gates": listed, "limits": GATE_LIMITS})
        return
    title = f"{run.name}: gates on {keys} places, {sensitive} of them sensitive"
    table = Table("gate", "of", "c", "τ", "gate ≤", "ratio ≤", "lift ≤", title=title)
    for gate in gates:
        clip = "none" if gate.logit_bound is None else f"{gate.logit_bound:g}"
        of = f"{gate.sensitive} of {gate.positions}"
        bounds = (gate.largest_gate, 4), (gate.ratio, 2), (gate.lift_bound, 2)
        shown = ("none" if bound is None else round_up(bound, digits) for bound, digits in bounds)
        table.add_row(gate.module, of, clip, f"{gate.temperature:.5g}", *shown)
    console.print(table)
    if gates[0].logit_bound is None:
        console.print(
            "NO CERTIFICATE HOLDS WHERE c IS none: LOGITS ARE UNCLIPPED.", style="bold red"
        )
    for limit in GATE_LIMITS:
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
