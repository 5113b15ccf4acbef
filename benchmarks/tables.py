"""Tables of models side by side: a row for each figure, a column for each model, over seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from attnpriv.estimates import Estimate

Row = dict[str, Any]
"""A figure: what it is called, and by model its text and its values."""


def row_of(words: str, values: Mapping[str, Sequence[Any]]) -> Row:
    """A figure of every model.

    Args:
        words: what it is called.
        values: by model, one for each seed: estimates, numbers, words, or None.
    """
    models = {
        name: {"text": text(own), "values": [plain(value) for value in own]}
        for name, own in values.items()
    }
    return {"figure": words, "models": models}


def text(values: Sequence[Any]) -> str:
    """The mean over the seeds with the envelope of their 95 % intervals; of words, how often each.

    Numbers without intervals have the smallest and the largest in their place.
    """
    if any(isinstance(value, str) for value in values):
        return ", ".join(
            word if count == len(values) else f"{word} {count} of {len(values)}"
            for word, count in Counter(map(str, values)).most_common()
        )
    means = [getattr(value, "value", value) for value in values]
    if not all(isinstance(mean, float | int) for mean in means):
        return "–"
    mean = f"{statistics.mean(means):.3f}"
    ends = [(value.low, value.high) for value in values if isinstance(value, Estimate)]
    if not ends:
        return f"{mean} ({min(means):.3f} to {max(means):.3f})" if max(means) > min(means) else mean
    lows, highs = zip(*ends, strict=True)
    return f"{mean} [{min(lows):.3f}, {max(highs):.3f}]"


def plain(value: Any) -> Any:
    """A figure as JSON has it."""
    match value:
        case Estimate():
            return [value.value, value.low, value.high]
        case float() | int() | None:
            return value
        case _:
            return str(value)


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The table as Markdown has it."""
    names = [*rows[0]["models"]]
    lines = [f"| {title} | {' | '.join(names)} |", "| --- " * (len(names) + 1) + "|"]
    for each in rows:
        cells = [each["models"][name]["text"] for name in names]
        lines.append(f"| {each['figure']} | {' | '.join(cells)} |")
    return "\n".join(lines)
