"""Texts with a secret: a piece of personal data, for which any of 100 public values may stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from attnpriv.data import Dataset, Span

CANDIDATES = 100
KINDS = ("PERSON", "PHONE_NUMBER", "EMAIL_ADDRESS", "LOCATION")


@dataclass(frozen=True)
class Secret:
    """A text and the span whose value is sought; whatever else is in the text is known.

    Attributes:
        text: with some value in the span.
        spans: all personal data of the text, that span among them.
        span: the one.
    """

    text: str
    spans: tuple[Span, ...]
    span: Span

    def with_value(self, value: str) -> tuple[str, tuple[Span, ...]]:
        """The text with another value, and its spans."""
        start, end = self.span.start, self.span.end
        grown = len(value) - (end - start)
        moved = (
            replace(each, end=each.end + grown)
            if each == self.span
            else replace(each, start=each.start + grown, end=each.end + grown)
            if each.start >= end
            else each
            for each in self.spans
        )
        return self.text[:start] + value + self.text[end:], tuple(moved)


def secrets_of(data: Dataset, kind: str, count: int) -> list[Secret]:
    """The first texts with one value of that type, which stands in them once."""
    found = []
    for text, spans in zip(data.texts, data.spans or (), strict=True):
        own = [span for span in spans if span.entity_type == kind]
        if len(own) == 1:
            found.append(Secret(text, spans, own[0]))
    return found[:count]


def public_values(data: Dataset, kind: str, seed: int) -> list[str]:
    """100 values of that type, no two of which differ by case alone."""
    values: dict[str, str] = {}
    for text, spans in zip(data.texts, data.spans or (), strict=True):
        for value in values_in(text, spans, kind):
            values.setdefault(value.casefold(), value)
    rng = np.random.default_rng(seed)
    return [str(value) for value in rng.permutation(sorted(values.values()))[:CANDIDATES]]


def values_in(text: str, spans: Sequence[Span], kind: str) -> list[str]:
    """The values of that type in a text."""
    return [text[span.start : span.end] for span in spans if span.entity_type == kind]
