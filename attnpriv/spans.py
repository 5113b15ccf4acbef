"""Stretches of personal data in a text, and how a file says where they are."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attnpriv.errors import InputError


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a text, ``text[start:end]``, that holds personal data of one type."""

    start: int
    end: int
    entity_type: str


def read_spans(cell: object, length: int) -> tuple[Span, ...]:
    """The spans of a text of so many characters, from a list or the JSON of one; each once.

    Raises:
        InputError: it is neither, or a span lies outside the text; no value is quoted.
    """
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            raise InputError("the spans are not JSON") from None
    if not isinstance(cell, list):
        raise InputError("expected a list of spans")
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
    raise InputError("expected spans with whole start and end, and an entity_type")
