"""Which stretches of a text are personal data, and what is shown in their place.

There are two sources: gold spans that come with a data set (``Dataset.spans``), and a ``Detector``
that reads the text. Presidio is imported only here, and only when a detector is made, since that
takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any, Protocol

from attnpriv.data.records import Span

# Types without a pattern, types that Presidio lists but finds only with a language model, and an
# identifier whose pattern is so weak that nearly every hit is something else (US_DRIVER_LICENSE: 4
# of 121 hits were right on gold spans).
NOT_SEEN = (
    "AGE",
    "DATE_IN_WORDS",
    "LOCATION",
    "NRP",
    "ORGANIZATION",
    "PERSON",
    "SHORT_NUMBER",  # fewer than seven digits: a PIN, a house number
    "STREET_ADDRESS",
    "US_DRIVER_LICENSE",
    "ZIP_CODE",
)
LONG_NUMBER = "LONG_NUMBER"
# What people write between the digits of one number: spaces of any width, parentheses, dots,
# slashes, dashes, and the invisible characters that come along when a number is copied.
_SEPARATORS = (
    r"()./\-\u00ad\u061c\u200b-\u200f\u2010-\u2015\u202a-\u202e\u2043\u2060-\u2069\u2212\u30fb\u30fc"
    r"\ufe58\ufe63\ufeff\uff08\uff09\uff0d-\uff0f"
)
_BETWEEN = rf"(?:[^\S\r\n]|[{_SEPARATORS}])"
_BETWEEN_GROUPS = rf"(?:[\s{_SEPARATORS}]{{0,3}}|[,:;_|*#'\u00b7])"
# Presidio's phone recogniser knows the numbering plans of a few countries. These patterns catch
# every other run of digits, in any script, whatever stands next to it. "1990 - 2000" is not one:
# eight digits with three separators. No separator is a digit, so no run can be read in two ways and
# the search takes linear time.
_NUMBERS = (
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,2}}\d){{6,}}"),
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,3}}\d){{8,}}"),
)
_LONG_NUMBER = re.compile(rf"\d(?:{_BETWEEN_GROUPS}\d){{12,}}")
_PHONE_DIGITS = 15  # a phone number has no more (E.164)
_NUMBER_SCORE, _LONG_NUMBER_SCORE = 0.3, 0.2  # below every result with a better reason
# Cards that Presidio's own pattern misses: Mastercard's 2-series, and cards of 17 to 19 digits.
_CARDS = (
    r"(?<!\d)[2-6]\d{15,18}(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{_BETWEEN_GROUPS}\d{{4}}){{3}}(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{_BETWEEN_GROUPS}\d{{4}}){{3}}{_BETWEEN_GROUPS}\d{{3}}(?!\d)",
)
# Presidio's date patterns end before the time of day if a space separates them.
_DATE_AND_TIME = r"\b\d{4}-\d{1,2}-\d{1,2} \d{1,2}:\d{2}(?::\d{2})?\b"
_DATE_SCORE = 0.7  # slightly above the score of the date alone
# What is left of a span is a fragment up to this many characters, too few to be a value of its own.
_FRAGMENT = 3


class Detector(Protocol):
    """Finds personal data in a text."""

    @property
    def name(self) -> str:
        """Its name in reports."""
        ...

    @property
    def entity_types(self) -> tuple[str, ...]:
        """The types that it can find."""
        ...

    @property
    def cannot_see(self) -> tuple[str, ...]:
        """Types that a reader would expect but that it never finds."""
        ...

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data, sorted and without overlaps; safe to call from threads."""
        ...


def placeholder(entity_type: str) -> str:
    """The text that is shown in place of personal data.

    >>> placeholder("PHONE_NUMBER"), placeholder("order id")
    ('[PHONE_NUMBER]', '[ORDER_ID]')
    """
    return f"[{re.sub(r'[^A-Z0-9]+', '_', entity_type.upper()).strip('_') or 'PERSONAL_DATA'}]"


class PresidioDetector:
    """Presidio's pattern recognisers, without a language model, and long numbers.

    A text takes about 1 ms. It keeps no text between calls and never uses the network.

    Claim: every run of seven or more decimal digits is in a span, whatever stands next to it, with
    up to two of the usual separators (spaces, dashes, dots, slashes, parentheses) between any two
    digits, or up to three from nine digits on; and so is every character of any recogniser's
    result. Not covered: anything else. It finds what has a pattern; ``cannot_see`` names what has
    none, and ``detector_quality`` measures the rest where gold spans exist.
    """

    name = "presidio-patterns"
    cannot_see = NOT_SEEN

    def __init__(self) -> None:
        self._engine = _pattern_engine()
        known = self._engine.get_supported_entities(language="en")
        self.entity_types = tuple(sorted({*known, LONG_NUMBER}))
        self.detect("")  # compiles every pattern now, so that threads only read them later

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data in the text, sorted and without overlaps."""
        results = self._engine.analyze(text, language="en")
        known = ((r.score, Span(r.start, r.end, r.entity_type)) for r in results)
        return resolve_overlaps([*known, *_long_numbers(text)])


def resolve_overlaps(scored: Iterable[tuple[float, Span]]) -> tuple[Span, ...]:
    """Give every character to the best span that contains it; sorted and without overlaps.

    The best span is the one with the higher score, then the longer, then the earlier one. What is
    left of another span keeps its own type, but joins the span next to it if it is a mere fragment.
    Touching spans of the same type become one. Claim: the result covers what the given spans cover,
    no more and no less. Not covered: that a stretch has the right type.
    """
    ranked = [span for _, span in sorted(scored, key=_preference)]
    owners: list[str | None] = [None] * max((span.end for span in ranked), default=0)
    for span in reversed(ranked):
        owners[span.start : span.end] = [span.entity_type] * (span.end - span.start)
    runs: list[Span] = []
    for entity_type, run in groupby(range(len(owners)), key=owners.__getitem__):
        if entity_type is not None:
            positions = list(run)
            runs.append(Span(positions[0], positions[-1] + 1, entity_type))
    return tuple(_join_fragments(runs, whole=set(ranked)))


def _join_fragments(runs: Iterable[Span], whole: Collection[Span]) -> list[Span]:
    """The runs, with each fragment of a span added to the run that it touches."""
    joined: list[Span] = []
    for run in runs:
        last = joined[-1] if joined and joined[-1].end == run.start else None
        if last is not None and _is_fragment(run, whole):
            joined[-1] = replace(last, end=run.end)
        elif last is not None and _is_fragment(last, whole):
            joined[-1] = replace(run, start=last.start)
        else:
            joined.append(run)
    return joined


def _is_fragment(span: Span, whole: Collection[Span]) -> bool:
    return span.end - span.start <= _FRAGMENT and span not in whole


def _preference(scored: tuple[float, Span]) -> tuple[float, int, int, str]:
    score, span = scored
    return -score, span.start - span.end, span.start, span.entity_type


def _long_numbers(text: str) -> Iterator[tuple[float, Span]]:
    """Runs of digits with their scores: those as long as a phone number, and all longer ones."""
    for match in chain.from_iterable(pattern.finditer(text) for pattern in _NUMBERS):
        if sum(map(str.isdecimal, match[0])) <= _PHONE_DIGITS:
            yield _NUMBER_SCORE, Span(*match.span(), "PHONE_NUMBER")
        else:
            yield _LONG_NUMBER_SCORE, Span(*match.span(), LONG_NUMBER)
    for match in _LONG_NUMBER.finditer(text):
        yield _LONG_NUMBER_SCORE, Span(*match.span(), LONG_NUMBER)


def _pattern_engine() -> Any:
    from presidio_analyzer import AnalyzerEngine, Pattern, RecognizerRegistry
    from presidio_analyzer import predefined_recognizers as known
    from presidio_analyzer.nlp_engine import NoOpNlpEngine
    from tldextract import TLDExtract

    extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(known.EmailRecognizer):
        """Checks domains against the suffix list in the package instead of downloading one."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    class AnyCardRecognizer(known.CreditCardRecognizer):
        """Computes the checksum of the digits, whatever separates them."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(super().validate_result("".join(filter(str.isdecimal, pattern_text))))

    date_and_time = Pattern("date and time", _DATE_AND_TIME, _DATE_SCORE)
    cards = [Pattern("card", pattern, _NUMBER_SCORE) for pattern in _CARDS]
    recognizers = [
        AnyCardRecognizer(patterns=[*known.CreditCardRecognizer.PATTERNS, *cards]),
        known.CryptoRecognizer(),
        known.DateRecognizer(patterns=[*known.DateRecognizer.PATTERNS, date_and_time]),
        OfflineEmailRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.PhoneRecognizer(),
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
