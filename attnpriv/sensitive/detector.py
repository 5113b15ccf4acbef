"""The detector of personal data: patterns, digits, names and what a file adds, put together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from attnpriv.data.records import Span
from attnpriv.sensitive.digits import LONG_NUMBER, long_numbers
from attnpriv.sensitive.names import TYPES, load_names, other_mentions
from attnpriv.sensitive.overlaps import resolve_overlaps
from attnpriv.sensitive.packages import PACKAGES
from attnpriv.sensitive.patterns import Patterns, known_patterns
from attnpriv.sensitive.rules import NO_MODEL, Rules
from attnpriv.sensitive.spellings import in_one_spelling, in_original, with_marks

# Types without a pattern, and an identifier whose pattern is so weak that nearly every hit is
# something else (US_DRIVER_LICENSE: 4 of 121 hits were right on gold spans).
NOT_SEEN = (
    "AGE",
    "SHORT_NUMBER",  # fewer than seven digits: a PIN, a code
    "US_DRIVER_LICENSE",
    "YEAR",  # alone, unless it is said to be one of birth
    "ZIP_CODE",  # but in an address, or where the text calls it one
)
# What patterns alone find only where the words beside it announce it.
SEEN_BY_MODELS = ("LOCATION", "NRP", "ORGANIZATION", "PERSON")


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
        """Types that a reader would expect but that it never finds, or misses too often."""
        ...

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data, sorted and without overlaps; safe to call from threads.

        Raises:
            DetectionError: the text could not be searched, so that nothing is known about it.
        """
        ...

    def detect_all(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """The same for each of many texts, which takes less time than one after the other."""
        ...


def placeholder(entity_type: str) -> str:
    """The text that is shown in place of personal data.

    >>> placeholder("PHONE_NUMBER"), placeholder("order id")
    ('[PHONE_NUMBER]', '[ORDER_ID]')
    """
    return f"[{re.sub(r'[^A-Z0-9]+', '_', entity_type.upper()).strip('_') or 'PERSONAL_DATA'}]"


class PresidioDetector:
    """Presidio's pattern recognisers, our own, a small language model for names, and long numbers.

    It keeps no text between calls and never uses the network. The language model is loaded once in
    a process.

    Claim: every run of seven or more decimal digits is in a span, whatever stands next to it, with
    up to two of the usual separators (spaces, dashes, dots, slashes, parentheses) between any two
    digits, or up to three from nine digits on; and so is every character of any recogniser's result
    that the rules do not allow. The same holds of the text in one spelling (``spellings``), without
    characters that are not seen. An error ends the search; it never leaves a recogniser out. Not
    covered: anything else. Names are found by likelihood, not by rule: ``cannot_see`` names what is
    missed often, and ``detector_quality`` measures the rest where gold spans exist.

    Args:
        rules: which language model, and what to show or hide besides.

    Raises:
        InputError: the language model is not installed, or is not the one that is pinned.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        rules = Rules() if rules is None else rules
        model = rules.language_model
        self._known = known_patterns()
        self._own = Patterns(rules.recognizers_of_words())
        self._names = None if model == NO_MODEL else load_names(model)
        self._allowed = {text.casefold() for text in rules.allow}
        self.name = rules.detector_name
        of_names = set() if self._names is None else set(TYPES.values())
        types = self._known.entity_types | of_names | {LONG_NUMBER}
        misses = SEEN_BY_MODELS if self._names is None else PACKAGES[model].misses
        own = self._own.entity_types
        self.entity_types = tuple(sorted({*types, *own}))
        self.cannot_see = tuple(sorted({*NOT_SEEN, *misses} - own))

    def detect(self, text: str) -> tuple[Span, ...]:
        """The spans of personal data in the text, sorted and without overlaps.

        Raises:
            DetectionError: a pattern took too long.
        """
        return self.detect_all([text])[0]

    def detect_all(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        """The same for each of many texts; the language model takes them together."""
        spelled = {i: other for i, text in enumerate(texts) if (other := in_one_spelling(text))}
        searched = [*texts, *(other.text for other in spelled.values())]
        named = [[] for _ in searched] if self._names is None else self._names.find(searched)
        found = [self._found(*each) for each in zip(searched, named, strict=True)]
        for (i, other), more in zip(spelled.items(), found[len(texts) :], strict=True):
            found[i] += [(score, in_original(span, other)) for score, span in more]
        return [
            resolve_overlaps((score, with_marks(span, text)) for score, span in each)
            for each, text in zip(found, texts, strict=False)
        ]

    def _found(self, text: str, names: Iterable[tuple[float, Span]]) -> list[tuple[float, Span]]:
        found = [*self._known.find(text), *long_numbers(text), *names]
        found += other_mentions(text, [span for _, span in found])
        return [*self._not_allowed(text, found), *self._own.find(text)]

    def _not_allowed(
        self, text: str, found: Sequence[tuple[float, Span]]
    ) -> list[tuple[float, Span]]:
        """What is left without the findings that are allowed, and those within them."""
        if not self._allowed:
            return list(found)
        allowed = [
            span for _, span in found if text[span.start : span.end].casefold() in self._allowed
        ]
        return [
            (score, span)
            for score, span in found
            if not any(each.start <= span.start and span.end <= each.end for each in allowed)
        ]
