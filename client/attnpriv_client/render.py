"""Answers as tables for a terminal: domain objects in, Rich renderables out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from attnpriv.rounding import round_up
from attnpriv_client.domain import (
    Explanation,
    ModelCard,
    ModelSummary,
    NoisedNumber,
    Prediction,
    Redaction,
    Summary,
    TokenExplanation,
)

BAR_WIDTH = 20
PATCHES = 10  # in a table


def predictions_table(
    asked: Sequence[str], predictions: Sequence[Prediction], kind: str = "text"
) -> Table:
    """One row for each text or file of an image: the label, its probability, and how it begins.

    Where any label is certified, also how many replaced tokens it withstands.
    """
    certified = any(each.certified_substitutions is not None for each in predictions)
    table = Table("label", "probability", *["withstands"] * certified, kind)
    for text, prediction in zip(asked, predictions, strict=True):
        withstands = [_withstands(prediction)] * certified
        label, begins = _plain(prediction.label), _one_line(text, 60)
        table.add_row(label, _probability(prediction), *withstands, begins)
    return table


def _withstands(prediction: Prediction) -> str:
    count = prediction.certified_substitutions
    return "" if count is None else f"{count} substitution{'' if count == 1 else 's'}"


def written(lines: int, output: Path) -> Text:
    """A line that says how many answers a file holds and where it is."""
    return Text(f"{lines} lines: {printable(str(output))}", overflow="fold")


def explanation_view(explanation: Explanation) -> RenderableType:
    """The answer, a heat strip and a table of the tokens, and notes on redaction and bounds.

    Of an image, a heat map and a table of the patches with the largest scores.
    """
    of_image = _kind(explanation) == "image"
    return Group(
        _head(explanation),
        heat_map(explanation.tokens) if of_image else _heat_strip(explanation.tokens),
        _patches_table(explanation) if of_image else _tokens_table(explanation),
        _notes(explanation),
    )


def _head(explanation: Explanation) -> Text:
    prediction = explanation.prediction
    if prediction is None:
        label, probability = "withheld", ""
    else:
        label = printable(prediction.label)
        probability = f" ({_probability(prediction)})" if prediction.probabilities else ""
    line = Text.assemble("label ", (label, "bold"), probability)
    if explanation.target_label:
        line.append("; integrated gradients are for ")
        line.append(printable(explanation.target_label), "bold")
    return line


def summary_view(summary: Summary) -> RenderableType:
    """Label counts, the means of each group, and notes on noise and price."""
    parts: list[RenderableType] = []
    if summary.labels:
        table = Table("label", "texts", "attention", "attribution")
        for label in summary.labels:
            shares = (_share(label.attention), _share(label.attribution))
            table.add_row(_plain(label.label), _interval(label.count, ".0f"), *shares)
        parts.append(table)
    if summary.groups:
        table = Table("mean share on", "attention", "attribution")
        for group in summary.groups:
            name = f'"{group.name}"' if group.is_word else group.name
            table.add_row(_plain(name), _share(group.attention), _share(group.attribution))
        parts.append(table)
    return Group(*parts, _summary_notes(summary))


def _summary_notes(summary: Summary) -> Text:
    lines = [
        f"{summary.texts} texts; each number with its 95 % interval, which holds the noise and the "
        "choice of the texts",
        f"charged to your privacy budget: ε = {summary.micro_epsilon / 1e6:g}",
    ]
    if summary.redaction is not None:
        unseen = ", ".join(summary.redaction.cannot_see)
        lines.insert(
            1, f"personal data found by {summary.redaction.detector}; it cannot see: {unseen}"
        )
    return _plain("\n".join(lines))


def _share(number: NoisedNumber | None) -> str:
    return "" if number is None else _interval(number, ".4f")


def _interval(number: NoisedNumber, form: str) -> str:
    return f"{number.value:{form}} [{number.low:{form}}, {number.high:{form}}]"


def models_table(models: Iterable[ModelSummary]) -> Table:
    """One row per model."""
    table = Table("model", "version", "private", "epsilon", "delta", "labels")
    for model in models:
        table.add_row(
            _plain(model.name),
            _plain(model.version),
            "yes" if model.private else "NO",
            _epsilon(model.epsilon),
            _number(model.delta),
            _plain(", ".join(model.label_names)),
        )
    return table


def card_table(card: ModelCard) -> Table:
    """The main points of a model card, one per row."""
    clip = "none" if card.clip is None else f"{card.clip:g} ({card.clip_mode})"
    learned = "" if card.temperature_floor is None else f", learned, >= {card.temperature_floor:g}"
    table = Table(show_header=False, show_lines=True)
    for name, lines in (
        ("model", [card.summary.name]),
        ("version", [f"{card.summary.version} of {', '.join(card.summary.versions)}"]),
        ("private", ["yes" if card.summary.private else "NO"]),
        ("epsilon", [_epsilon(card.summary.epsilon)]),
        ("delta", [_number(card.summary.delta)]),
        ("statement", [card.statement]),
        ("not covered", card.not_covered),
        ("warnings", card.warnings),
        ("labels", [", ".join(card.summary.label_names)]),
        ("encoder", [card.encoder]),
        ("attention", [f"temperature {card.temperature:g}{learned}, clip {clip}"]),
    ):
        table.add_row(name, _plain("\n".join(lines)))
    return table


def _heat_strip(tokens: Sequence[TokenExplanation]) -> Text:
    """The tokens in a row; the more attention, or else gradient, a token has, the darker it is."""
    strip = Text()
    for token, shade in zip(tokens, _shades(tokens), strict=True):
        strip.append(printable(token.text), shade).append(" ")
    return strip


def heat_map(patches: Sequence[TokenExplanation]) -> Text:
    """The patches as they lie in the image, shaded as the tokens of a strip; x where one is hidden.

    A digit from 0 to 9 says the shade again, for terminals without colours.
    """
    lines: dict[int, Text] = {}
    for patch, shade, score in zip(patches, _shades(patches), _scores(patches), strict=True):
        _, row, _, _ = patch.box or (0, 0, 0, 0)
        cell = "xx" if patch.entity_types else f" {round(9 * score)}"
        lines.setdefault(row, Text()).append(cell, shade)
    return Text("\n").join(lines.values())


def _scores(tokens: Sequence[TokenExplanation]) -> list[float]:
    """Attention, or else the size of the gradient, as a share of the largest there is."""
    scores = [abs(_first(token.attention, token.integrated_gradients)) for token in tokens]
    top = max(scores, default=0.0) or 1.0
    return [score / top for score in scores]


def _shades(tokens: Sequence[TokenExplanation]) -> list[str]:
    numbers = [round(255 - 155 * score) for score in _scores(tokens)]
    return [f"black on rgb(255,{number},{number})" for number in numbers]


def _patches_table(explanation: Explanation) -> Table:
    """The patches with the largest scores, by their pixels."""
    patches, scores = explanation.tokens, _scores(explanation.tokens)
    table = Table("pixels", "attention", "integrated gradients", "hidden")
    for index in sorted(range(len(patches)), key=lambda index: -scores[index])[:PATCHES]:
        patch = patches[index]
        left, top, right, bottom = patch.box or (0, 0, 0, 0)
        table.add_row(
            f"x {left} to {right - 1}, y {top} to {bottom - 1}",
            _number(patch.attention, ".4f"),
            _number(patch.integrated_gradients, "+.4f"),
            _plain(patch.text),
        )
    return table


def _tokens_table(explanation: Explanation) -> Table:
    rows = (*explanation.tokens, *explanation.special_tokens)
    top = max((token.attention or 0.0 for token in rows), default=0.0) or 1.0
    table = Table("token", "attention", "", "integrated gradients")
    for token in rows:
        bar = _Bar(round(BAR_WIDTH * (token.attention or 0.0) / top))
        scores = (_number(token.attention, ".4f"), _number(token.integrated_gradients, "+.4f"))
        table.add_row(_one_line(token.text, 40), scores[0], bar, scores[1])
    return table


class _Bar:
    """A bar of ``length`` characters that the terminal can show."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(("#" if options.ascii_only else "█") * self._length)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(self._length, self._length)


def _notes(explanation: Explanation) -> Text:
    over = "with [CLS] and [SEP]" if explanation.special_tokens else "over all of them"
    lines = [f"attention: last layer, mean over heads and queries; sums to 1 {over}"]
    if _kind(explanation) == "image" and explanation.tokens[0].attention is None:
        lines = ["no attention: withheld, or the model attends to no patches"]
    if explanation.weight_bound is not None:
        lines.append(
            f"certified: no single attention weight exceeds {round_up(explanation.weight_bound, 4)}"
        )
    if explanation.integrated_gradients_withheld is not None:
        lines.append(f"no integrated gradients: {explanation.integrated_gradients_withheld}")
    elif explanation.integrated_gradients_error is not None:
        lines.append(_completeness(explanation.tokens, explanation.integrated_gradients_error))
    if explanation.prediction is not None and explanation.prediction.truncated:
        lines.append("the text is longer than the model can read; only its beginning counted")
    lines.append(_redaction(explanation.redaction))
    if explanation.drawn_token is not None:
        drawn = explanation.tokens[explanation.drawn_token]
        where = drawn.text if drawn.box is None else f"the patch at {drawn.box[0]}, {drawn.box[1]}"
        lines.append(f"drawn by its attention in the full {_kind(explanation)}: {where}")
    if explanation.micro_epsilon:
        lines.append(f"charged to your privacy budget: ε = {explanation.micro_epsilon / 1e6:g}")
    return _plain("\n".join(lines))


def _kind(explanation: Explanation) -> str:
    return "image" if any(token.box for token in explanation.tokens) else "text"


def _redaction(redaction: Redaction | None) -> str:
    if redaction is None:
        return "nothing was redacted"
    read = "not read by the model" if redaction.hidden_from_model else "but read by the model"
    unseen = ", ".join(redaction.cannot_see)
    return f"redacted by {redaction.detector}, {read}; it cannot see: {unseen}"


def _completeness(tokens: Sequence[TokenExplanation], error: float) -> str:
    total = sum(token.integrated_gradients or 0.0 for token in tokens)
    return (
        f"integrated gradients: sum to {total:+.4f}, within {round_up(error, 4)} of the difference "
        "of the logits"
    )


def _probability(prediction: Prediction) -> str:
    if prediction.probabilities is None:
        return "withheld"
    return f"{prediction.probabilities[prediction.label]:.4f}"


def _first(*values: float | None) -> float:
    return next((value for value in values if value is not None), 0.0)


def _epsilon(value: float | None) -> str:
    return "none" if value is None else round_up(value, 3)


def _number(value: float | None, form: str = "g") -> str:
    return "none" if value is None else format(value, form)


def _one_line(text: str, width: int) -> Text:
    short = _plain(" ".join(text.split()))
    short.truncate(width, overflow="ellipsis")
    return short


def _plain(text: str) -> Text:
    """A text shown as it is, without interpreting markup."""
    return Text(printable(text))


def printable(text: str) -> str:
    """The text without control characters, which could steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
