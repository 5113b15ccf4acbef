"""How well a detector finds what gold spans mark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnpriv.data.records import Span
from attnpriv.sensitive.detector import Detector


@dataclass(frozen=True)
class TypeQuality:
    """How well a detector finds one entity type; two spans match if they overlap.

    Attributes:
        entity_type: the type.
        gold: number of gold spans of this type.
        found: number of these that overlap a detected span of the same type.
        found_as_any: number of these that overlap a detected span of any type.
        detected: number of spans of this type that the detector reported.
        correct: number of these that overlap a gold span of the same type.
    """

    entity_type: str
    gold: int
    found: int
    found_as_any: int
    detected: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Share of the gold spans that were found with the right type; None without gold spans."""
        return self.found / self.gold if self.gold else None

    @property
    def precision(self) -> float | None:
        """Share of the detected spans that are right; None if nothing was detected."""
        return self.correct / self.detected if self.detected else None


def detector_quality(
    detector: Detector, texts: Sequence[str], gold: Sequence[Sequence[Span]]
) -> tuple[TypeQuality, ...]:
    """Compare a detector with gold spans, one entry for each type that either of them names."""
    return span_quality([detector.detect(text) for text in texts], gold)


def span_quality(
    detected: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]
) -> tuple[TypeQuality, ...]:
    """The same, given what the detector found in each text."""
    pairs = [(tuple(g), tuple(d)) for d, g in zip(detected, gold, strict=True)]
    types = sorted({span.entity_type for pair in pairs for spans in pair for span in spans})
    return tuple(_type_quality(entity_type, pairs) for entity_type in types)


def _type_quality(
    entity_type: str, pairs: Sequence[tuple[tuple[Span, ...], tuple[Span, ...]]]
) -> TypeQuality:
    counts = [0, 0, 0, 0, 0]
    for gold, detected in pairs:
        real = [span for span in gold if span.entity_type == entity_type]
        claimed = [span for span in detected if span.entity_type == entity_type]
        parts = (
            len(real),
            _touched(real, claimed),
            _touched(real, detected),
            len(claimed),
            _touched(claimed, real),
        )
        counts = [total + part for total, part in zip(counts, parts, strict=True)]
    return TypeQuality(entity_type, *counts)


def _touched(spans: Sequence[Span], others: Sequence[Span]) -> int:
    return sum(any(s.start < o.end and o.start < s.end for o in others) for s in spans)
