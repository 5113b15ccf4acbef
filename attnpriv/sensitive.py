"""Who says that a stretch of text is personal data, and how it is shown once that is said.

Two sources: gold spans that came with a data set (``Dataset.spans``), and a ``Detector`` that reads
the text. Presidio is imported here only, and only when a detector is made: that takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from attnpriv.data.records import Span

# Kinds that Presidio lists but finds only with a language model, and identifiers whose patterns
# are so weak that nearly every hit is something else (US_DRIVER_LICENSE: 4 in 121 on gold spans).
NOT_SEEN = (
    "AGE",
    "LOCATION",
    "NRP",
    "ORGANIZATION",
    "PERSON",
    "US_BANK_NUMBER",
    "US_DRIVER_LICENSE",
    "US_PASSPORT",
    "ZIP_CODE",
)
# Seven to fifteen digits with the usual separators. Presidio's own phone recogniser knows the plans
# of a few countries; this one catches the rest, and loses to any better-founded result.
_LONG_NUMBER = r"(?<!\w)\+?\(?\d(?:[ ().-]{0,2}\d){6,14}(?!\w)"
_LONG_NUMBER_SCORE = 0.3


class Detector(Protocol):
    """Something that finds personal data in a text."""

    @property
    def name(self) -> str:
        """What to call it in reports."""
        ...

    @property
    def entity_types(self) -> tuple[str, ...]:
        """The types that it can find."""
        ...

    @property
    def cannot_see(self) -> tuple[str, ...]:
        """Types that a reader would expect and that it never finds."""
        ...

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data, sorted and without overlaps; safe to call from threads."""
        ...


def placeholder(entity_type: str) -> str:
    """What is shown in place of personal data.

    >>> placeholder("PHONE_NUMBER"), placeholder("order id")
    ('[PHONE_NUMBER]', '[ORDER_ID]')
    """
    return f"[{re.sub(r'[^A-Z0-9]+', '_', entity_type.upper()).strip('_') or 'PERSONAL_DATA'}]"


class PresidioDetector:
    """Presidio's pattern recognisers without a language model, about 1 ms a text.

    Claim: none. It finds what has a pattern; ``cannot_see`` names what has not, and
    ``detector_quality`` measures the rest where gold spans exist. It keeps no text between calls
    and never uses the network.
    """

    name = "presidio-patterns"
    cannot_see = NOT_SEEN

    def __init__(self) -> None:
        self._engine = _pattern_engine()
        self.entity_types = tuple(sorted(self._engine.get_supported_entities(language="en")))
        self.detect("")  # compiles every pattern now, so that threads later only read

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data in the text, sorted and without overlaps."""
        results = self._engine.analyze(text, language="en")
        return resolve_overlaps((r.score, Span(r.start, r.end, r.entity_type)) for r in results)


def resolve_overlaps(scored: Iterable[tuple[float, Span]]) -> tuple[Span, ...]:
    """Keep the higher score, then the longer span, then the earlier; sorted by position."""
    kept: list[Span] = []
    for _, span in sorted(scored, key=_preference):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda span: span.start))


def _preference(scored: tuple[float, Span]) -> tuple[float, int, int, str]:
    score, span = scored
    return -score, span.start - span.end, span.start, span.entity_type


def _pattern_engine() -> Any:
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer import predefined_recognizers as known
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from tldextract import TLDExtract

    extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(known.EmailRecognizer):
        """Checks domains against the suffix list that came with the package, not the newest."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    number = Pattern("long number", _LONG_NUMBER, _LONG_NUMBER_SCORE)
    recognizers = [
        known.CreditCardRecognizer(),
        known.CryptoRecognizer(),
        known.DateRecognizer(),
        OfflineEmailRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.PhoneRecognizer(),
        PatternRecognizer(supported_entity="PHONE_NUMBER", patterns=[number]),
        known.UrlRecognizer(),
        known.UsSsnRecognizer(),
    ]
    return AnalyzerEngine(
        registry=RecognizerRegistry(recognizers),
        nlp_engine=NoOpNlpEngine([{"lang_code": "en", "model_name": "none"}]),
        supported_languages=["en"],
    )


@dataclass(frozen=True)
class TypeQuality:
    """How well a detector finds one entity type; two spans match when they overlap.

    Attributes:
        entity_type: the type.
        gold: spans of this type that are there.
        found: of these, covered by a detected span of the same type.
        found_as_any: of these, covered by a detected span of whatever type, so still redacted.
        detected: spans of this type that the detector reported.
        correct: of these, overlapping a gold span of the same type.
    """

    entity_type: str
    gold: int
    found: int
    found_as_any: int
    detected: int
    correct: int

    @property
    def recall(self) -> float | None:
        """Share of the gold spans that were found with their type; None without gold spans."""
        return self.found / self.gold if self.gold else None

    @property
    def precision(self) -> float | None:
        """Share of the detected spans that are right; None where nothing was detected."""
        return self.correct / self.detected if self.detected else None


def detector_quality(
    detector: Detector, texts: Sequence[str], gold: Sequence[Sequence[Span]]
) -> tuple[TypeQuality, ...]:
    """Compare a detector with gold spans, one entry for each type that either of them names."""
    return span_quality([detector.detect(text) for text in texts], gold)


def span_quality(
    detected: Sequence[Sequence[Span]], gold: Sequence[Sequence[Span]]
) -> tuple[TypeQuality, ...]:
    """The same where it is known already what the detector found in each text."""
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
