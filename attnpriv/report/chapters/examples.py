"""Single records, token by token or patch by patch: what the model can do, not its average."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import blurred
from attnpriv.report.blocks import Block, Box, Heading, How, Strip, Text, Token
from attnpriv.report.chapter import Chapter
from attnpriv.report.formats import percent

if TYPE_CHECKING:
    from attnpriv.audit.examples import Example, Piece
    from attnpriv.audit.measures import AuditResult

SHADES = 6  # depths of colour in a token heatmap
SPECIAL = ("[CLS]", "[SEP]")
MAPS = (
    ("attention", "Attention", "Tokens shaded by attention"),
    ("gates", "Spatial gates", "Tokens shaded by spatial gates"),
    ("attribution", "Attribution", "Tokens shaded by integrated gradients"),
    ("gradcam", "GradCAM", "Tokens shaded by GradCAM"),
    ("hirescam", "HiResCAM", "Tokens shaded by HiResCAM"),
)
SHARES = ("attention", "gates")  # of a whole that all tokens divide
LEGEND = Markup(
    '<span class="t a5">more attention</span> '
    '<span class="t p5">moved the answer towards the predicted class</span> '
    '<span class="t n5">moved it away</span>'
)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The records of each run, each of them once for every map that the model has."""
    of_images = any(piece.box for run in runs for each in run.examples for piece in each.pieces)
    yield Text(
        "The held-out records in which attention, or, without it, attribution exceeds the share of "
        "personal data by most, worst first: they show what the model can do, not what it does on "
        "average. "
        f"{_hidden(of_images, include_text)} Special tokens aside, the middle shade of attention "
        "and of gates is the record’s average, the deepest twice that or more; shades of "
        "attribution, GradCAM and HiResCAM are relative to the record’s strongest token."
    )
    yield Text(LEGEND, "legend")
    for run in runs:
        yield Heading(run.name)
        for example in run.examples:
            shown = example if include_text else blurred(example)
            yield Box(tuple(_example(shown, include_text)), "example")
        if not run.examples:
            yield Text("No held-out record with personal data.")
    yield How(
        "results[].examples",
        "Attention: mean over layers, heads and queries. Gates: mean over layers of each "
        "position’s share. Attribution: integrated gradients of the predicted class, signed. "
        "GradCAM and HiResCAM: towards the predicted class. A value of several tokens is one box "
        "with their mean, so that its length does not show. The JSON file holds the figures of "
        "each token.",
    )


def _example(example: Example, include_text: bool) -> Iterator[Block]:
    """One strip for each map that the model has.

    The special tokens set no scale: they would drown the rest. Attention and gates have the scale
    of a lift, from 0 to twice the average; of uniform ones, all tokens have the middle shade.
    """
    columns = _columns(example)
    content = example.pieces if columns else example.pieces[1:-1]
    yield Text(
        Markup("true class <b>{}</b>, predicted <b>{}</b> ({})").format(
            example.label, example.predicted, percent(example.probability)
        )
    )
    for name, title, label in MAPS:
        values = [getattr(piece, name) for piece in content]
        if all(value is not None for value in values):
            yield Text(title, "kind")
            colour = _by_share(name, values) if name in SHARES else _by_effect(name, values)
            yield Strip(label, tuple(_tokens(example, colour, include_text)), columns)


def _by_share(name: str, values: Sequence[float]) -> Callable[[Piece], str]:
    average = sum(values) / max(len(values), 1)

    def colour(piece: Piece) -> str:
        special = piece.placeholder in SPECIAL
        return f"a{0 if special else _shade(getattr(piece, name), 2 * average)}"

    return colour


def _by_effect(name: str, values: Sequence[float]) -> Callable[[Piece], str]:
    strongest = max(map(abs, values), default=0.0)

    def colour(piece: Piece) -> str:
        value = getattr(piece, name)
        return f"{'p' if value >= 0 else 'n'}{_shade(abs(value), strongest)}"

    return colour


def _columns(example: Example) -> int | None:
    """How many patches a row of an image has; None for a text."""
    tops = [piece.box[1] for piece in example.pieces if piece.box is not None]
    return tops.count(tops[0]) if tops else None


def _hidden(of_images: bool, include_text: bool) -> str:
    if of_images and include_text:
        return (
            "No pixel is shown. Dashed patches are of a sensitive region; each has its own shade, "
            "because that was asked for."
        )
    if of_images:
        return (
            "No pixel is shown. Dashed patches are of a sensitive region, and share its mean, so "
            "that its inside does not show."
        )
    if include_text:
        return (
            "Personal data is replaced by its type. The other words are shown because that was "
            "asked for; personal data that nobody marked is shown with them."
        )
    return (
        "Personal data is replaced by its type. The other words are hidden: each box is one token, "
        "whatever its length."
    )


def _tokens(
    example: Example, colour: Callable[[Piece], str], include_text: bool
) -> Iterator[Token]:
    for piece in example.pieces:
        words = piece.placeholder or (piece.word if include_text else None)
        words = None if piece.box else words
        joined = piece.joined and include_text  # joined boxes would tell long words
        yield Token(words, colour(piece), joined, bool(piece.placeholder))


def _shade(value: float, top: float) -> int:
    return min(SHADES, round(SHADES * value / top)) if top > 0 else 0


CHAPTER = Chapter(name="examples", place=150, title="Examples, word by word", body=body)
