"""Stretches of personal data in a text, and the form in which files give them."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attnpriv.errors import InputError

Place = tuple[int, int]
"""Characters of a text, from start up to end."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, ``text[start:end]``, that is personal data of one type."""

    start: int
    end: int
    entity_type: str


def read_spans(cell: object, length: int) -> tuple[Span, ...]:
    """Read the spans of a text from a list or from JSON; duplicates count once.

    Args:
        cell: a list of ``{"start", "end", "entity_type"}``, or the same as a string of JSON.
        length: number of characters of the text.

    Raises:
        InputError: the cell has another form, or a span is not inside the text. The message quotes
            no text.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise InputError("the spans are not JSON") from None
    if not isinstance(cell, list):
        raise InputError("expected a list of spans, each with start, end and entity_type")
    return tuple(dict.fromkeys(_read_span(item, length) for item in cell))


def _read_span(item: object, length: int) -> Span:
    match item:
        case {"start": int(start), "end": int(end), "entity_type": str(entity_type)}:
            if bool not in (type(start), type(end)) and entity_type:
                if 0 <= start < end <= length:
                    return Span(start, end, entity_type)
                raise InputError(
                    f"expected spans with 0 <= start < end <= {length}, got {start} to {end}"
                )
    raise InputError(
        "expected spans with whole numbers as start and end, and a name as entity_type"
    )
