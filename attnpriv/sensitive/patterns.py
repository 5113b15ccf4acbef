"""Presidio's pattern recognisers and ours. ``presidio`` imports what is needed of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from attnpriv.data.records import Span
from attnpriv.errors import DetectionError
from attnpriv.sensitive import postal
from attnpriv.sensitive.digits import BETWEEN_GROUPS, NUMBER_SCORE
from attnpriv.sensitive.readings import as_prose, pieces

# Far more than 64 KB of prose need. Presidio would wait for a minute for each pattern, and then go
# on without it.
SECONDS = 30.0
TOO_SLOW = f"a text cannot be searched for personal data within {SECONDS:g} s"

# Cards that Presidio's own pattern misses: Mastercard's 2-series, those of 12, 13 and 17 to 19
# digits, and those of 15 that begin with 1800 or 2131.
_CARDS = (
    r"(?<!\d)[2-6]\d{15,18}(?!\d)",
    r"(?<!\d)(?:5[06-9]|6\d)\d{10,13}(?!\d)",
    r"(?<!\d)(?:4\d{12}|(?:1800|2131)\d{11})(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{BETWEEN_GROUPS}\d{{4}}){{3}}(?!\d)",
    rf"(?<!\d)[2-6]\d{{3}}(?:{BETWEEN_GROUPS}\d{{4}}){{3}}{BETWEEN_GROUPS}\d{{3}}(?!\d)",
)
# A time of day belongs to its date, and months are written in words too.
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|"
    r"sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\b\.?"
)
_DAY, _YEAR = r"(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?", r"(?:1[89]|20)\d{2}"
_TIME = r"(?:,?[ ](?:at[ ])?\d{1,2}:\d{2}(?::\d{2})?(?:[ ]?[ap]m)?)"
_DATES = {
    "date and time": (rf"\b\d{{4}}[-/.]\d{{1,2}}[-/.]\d{{1,2}}{_TIME}\b", 0.7),
    "day first, and time": (rf"\b\d{{1,2}}[-/.]\d{{1,2}}[-/.]\d{{2,4}}{_TIME}\b", 0.7),
    "day and month": (
        rf"\b{_DAY}(?:[ ]of)?[ -]{_MONTH}(?:[ ,.-]{{1,2}}{_YEAR})?{_TIME}?(?!\w)",
        0.6,
    ),
    "month and day": (rf"\b{_MONTH}[ -]{_DAY}(?:,?[ ]{_YEAR})?{_TIME}?(?!\w)", 0.6),
    "month and year": (rf"\b{_MONTH}[ ,-]{{1,2}}{_YEAR}(?!\w)", 0.6),
    "year of birth": (rf"(?<=\bborn[ ](?:in[ ]|on[ ])?){_YEAR}(?!\w)", 0.3),
}
# Presidio's own pattern tries a thousand endings at every letter: a second for 1,000 characters of
# "a.a.a.". Here the package's list of public suffixes decides about what looks like a host.
_URLS = {
    "with a scheme": (r"https?://[^\s<>\"']+", 0.6),
    "host": (r"(?<!\w)(?<!\w[.-])(?:\w[\w-]*\.)+\p{L}{2,24}\b(?::\d+)?(?:/[^\s()<>\"']*)?", 0.5),
}


class Patterns:
    """Recognisers with Presidio's interface; safe to call from threads.

    Args:
        as_written: see the text as it stands.
        with_capitals: see it as prose too, since they need capitals.
    """

    def __init__(self, as_written: Sequence[Any], with_capitals: Sequence[Any] = ()) -> None:
        self._as_written = as_written
        self._with_capitals = with_capitals
        every = (*as_written, *with_capitals)
        for recognizer in every:
            _limit_time(recognizer)
        self.entity_types = {kind for each in every for kind in each.supported_entities}

    def find(self, text: str) -> Iterator[tuple[float, Span]]:
        """What matches, with its score; spans may overlap.

        Raises:
            DetectionError: it took longer than ``SECONDS``.
        """
        end = time.monotonic() + SECONDS
        for start, piece in pieces(text):
            if time.monotonic() > end:
                raise DetectionError(TOO_SLOW)
            yield from _results(self._as_written, piece, start)
            for reading in dict.fromkeys((piece, as_prose(piece))):
                yield from _results(self._with_capitals, reading, start)


def known_patterns() -> Patterns:
    """Presidio's recognisers of what has a pattern, and those of addresses and announced names."""
    return Patterns(_presidios(), _ours())


def _results(recognizers: Sequence[Any], text: str, start: int) -> Iterator[tuple[float, Span]]:
    for recognizer in recognizers:
        for found in recognizer.analyze(text, recognizer.supported_entities, None) or ():
            yield found.score, Span(start + found.start, start + found.end, found.entity_type)


class _Limited:
    """A compiled pattern that fails when its time is up; Presidio would leave it out."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled

    def finditer(self, text: str, timeout: float) -> Iterator[Any]:
        try:
            yield from self._compiled.finditer(text, timeout=min(SECONDS, timeout))
        except TimeoutError:
            raise DetectionError(TOO_SLOW) from None


def _limit_time(recognizer: Any) -> None:
    """Compile the patterns of a recogniser now, so that threads only read them later."""
    import regex

    for pattern in getattr(recognizer, "patterns", ()):
        flags = recognizer.global_regex_flags
        pattern.compiled_regex = _Limited(regex.compile(pattern.regex, flags))
        pattern.compiled_with_flags = flags


def _ours() -> list[Any]:
    import regex

    from attnpriv.sensitive.presidio import Pattern, PatternRecognizer

    return [
        PatternRecognizer(
            kind,
            patterns=[Pattern(name, each, score) for name, (each, score) in of_kind.items()],
            global_regex_flags=regex.MULTILINE,
        )
        for kind, of_kind in postal.PATTERNS.items()
    ]


def _presidios() -> list[Any]:
    from tldextract import TLDExtract

    from attnpriv.sensitive.presidio import Pattern
    from attnpriv.sensitive.presidio import predefined_recognizers as known

    extract = TLDExtract(suffix_list_urls=(), cache_dir=None)

    class OfflineEmailRecognizer(known.EmailRecognizer):
        """Checks domains against the suffix list in the package instead of downloading one."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(extract(pattern_text).fqdn)

    class HostRecognizer(known.UrlRecognizer):
        """Checks hosts without a scheme against the same list."""

        def invalidate_result(self, pattern_text: str) -> bool:
            if "://" in pattern_text:
                return False
            return not extract(pattern_text.partition("/")[0]).fqdn

    class AnyCardRecognizer(known.CreditCardRecognizer):
        """Computes the checksum of the digits, whatever separates them."""

        def validate_result(self, pattern_text: str) -> bool:
            return bool(super().validate_result("".join(filter(str.isdecimal, pattern_text))))

    def made(patterns: dict[str, tuple[str, float]]) -> list[Any]:
        return [Pattern(name, regex, score) for name, (regex, score) in patterns.items()]

    cards = [Pattern("card", pattern, NUMBER_SCORE) for pattern in _CARDS]
    return [
        AnyCardRecognizer(patterns=[*known.CreditCardRecognizer.PATTERNS, *cards]),
        known.CryptoRecognizer(),
        known.DateRecognizer(patterns=[*known.DateRecognizer.PATTERNS, *made(_DATES)]),
        OfflineEmailRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.MacAddressRecognizer(),
        known.PhoneRecognizer(),
        HostRecognizer(patterns=made(_URLS)),
        known.UsSsnRecognizer(),
    ]
