"""Who says that a stretch of text is personal data, and how it is shown once that is said.

Two sources: gold spans that came with a data set (``Dataset.spans``), and a ``Detector`` that reads
the text. Presidio is imported here only, and only when a detector is made: that takes seconds.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import Any, Protocol

from attnpriv.data.records import Span

# Kinds that have no pattern, those that Presidio lists but finds only with a language model, and an
# identifier whose pattern is so weak that nearly every hit is something else (US_DRIVER_LICENSE: 4
# in 121 on gold spans).
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
# What people put between the digits of one number: spaces of any width, parentheses, dots, slashes,
# dashes, and the characters without width that come along when a number is copied.
_SEPARATORS = (
    r"()./\-\u00ad\u061c\u200b-\u200f\u2010-\u2015\u202a-\u202e\u2043\u2060-\u2069\u2212\u30fb\u30fc"
    r"\ufe58\ufe63\ufeff\uff08\uff09\uff0d-\uff0f"
)
_BETWEEN = rf"(?:[^\S\r\n]|[{_SEPARATORS}])"
_BETWEEN_GROUPS = rf"(?:[\s{_SEPARATORS}]{{0,3}}|[,:;_|*#'\u00b7])"
# Presidio's phone recogniser knows the plans of a few countries; these catch every other run of
# digits, of any script, whatever stands beside it. "1990 - 2000" is none: eight digits with three
# separators. No separator is a digit, so no run can be read in two ways and the search takes
# linear time.
_NUMBERS = (
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,2}}\d){{6,}}"),
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,3}}\d){{8,}}"),
)
_LONG_NUMBER = re.compile(rf"\d(?:{_BETWEEN_GROUPS}\d){{12,}}")
_PHONE_DIGITS = 15  # a phone number has no more (E.164)
_NUMBER_SCORE, _LONG_NUMBER_SCORE = 0.3, 0.2  # less than any better-founded result
# Cards that Presidio's own pattern leaves out: Mastercard's 2-series and those of 17 to 19 digits.
_CARDS = (
    r"(?<!\d)[2-6]\d{15,18}(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{_BETWEEN_GROUPS}\d{{4}}){{3}}(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{_BETWEEN_GROUPS}\d{{4}}){{3}}{_BETWEEN_GROUPS}\d{{3}}(?!\d)",
)
# Presidio's date patterns end before the time of day where a space stands between.
_DATE_AND_TIME = r"\b\d{4}-\d{1,2}-\d{1,2} \d{1,2}:\d{2}(?::\d{2})?\b"
_DATE_SCORE = 0.7  # a little more than that of the date alone
# A rest of so few characters names nothing by itself.
_FRAGMENT = 3


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
    """Presidio's pattern recognisers without a language model and long numbers, about 1 ms a text.

    Claim: every run of seven or more decimal digits lies in a span, whatever stands beside it, with
    up to two of the usual separators (spaces, dashes, dots, slashes, parentheses) between any two
    digits, or up to three from nine digits on; and so does every character of any recogniser's
    result. Not covered: anything else. It finds what has a pattern; ``cannot_see`` names what has
    not, and ``detector_quality`` measures the rest where gold spans exist. It keeps no text between
    calls and never uses the network.
    """

    name = "presidio-patterns"
    cannot_see = NOT_SEEN

    def __init__(self) -> None:
        self._engine = _pattern_engine()
        known = self._engine.get_supported_entities(language="en")
        self.entity_types = tuple(sorted({*known, LONG_NUMBER}))
        self.detect("")  # compiles every pattern now, so that threads later only read

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data in the text, sorted and without overlaps."""
        results = self._engine.analyze(text, language="en")
        known = ((r.score, Span(r.start, r.end, r.entity_type)) for r in results)
        return resolve_overlaps([*known, *_long_numbers(text)])


def resolve_overlaps(scored: Iterable[tuple[float, Span]]) -> tuple[Span, ...]:
    """Give every character to the best span that holds it; sorted and without overlaps.

    Best is the higher score, then the longer span, then the earlier. What it leaves of another span
    keeps that one's type, and joins the span beside it where it is a mere fragment; spans of one
    type that touch become one. Claim: the result covers what the given spans cover, no more and no
    less. Not covered: that a stretch has the right type.
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
    """The runs, with fragments that are no whole span added to the one that they touch."""
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
    """Runs of digits with their scores: those of a phone number's length, and all longer ones."""
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
        """Checks domains against the suffix list that came with the package, not the newest."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    class AnyCardRecognizer(known.CreditCardRecognizer):
        """Takes the digits between separators of any kind to the check sum."""

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
