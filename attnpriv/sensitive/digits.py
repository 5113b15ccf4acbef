"""Every long run of digits, whatever stands between and beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from attnpriv.data.records import Span

LONG_NUMBER = "LONG_NUMBER"
# What people write between the digits of one number: spaces of any width, parentheses, dots,
# slashes, dashes, and the invisible characters that come along when a number is copied.
_SEPARATORS = (
    r"()./\-\u00ad\u061c\u200b-\u200f\u2010-\u2015\u202a-\u202e\u2043\u2060-\u2069\u2212\u30fb\u30fc"
    r"\ufe58\ufe63\ufeff\uff08\uff09\uff0d-\uff0f"
)
_BETWEEN = rf"(?:[^\S\r\n]|[{_SEPARATORS}])"
BETWEEN_GROUPS = rf"(?:[\s{_SEPARATORS}]{{0,3}}|[,:;_|*#'\u00b7])"
# Presidio's phone recogniser knows the numbering plans of a few countries. These patterns catch
# every other run of digits, in any script, whatever stands next to it. "1990 - 2000" is not one:
# eight digits with three separators. No separator is a digit, so no run can be read in two ways and
# the search takes linear time.
NUMBERS = (
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,2}}\d){{6,}}"),
    re.compile(rf"\+?\(?\d(?:{_BETWEEN}{{0,3}}\d){{8,}}"),
)
LONG_NUMBERS = re.compile(rf"\d(?:{BETWEEN_GROUPS}\d){{12,}}")
_PHONE_DIGITS = 15  # a phone number has no more (E.164)
NUMBER_SCORE, LONG_NUMBER_SCORE = 0.3, 0.2  # below every result with a better reason


def long_numbers(text: str) -> Iterator[tuple[float, Span]]:
    """Runs of digits with their scores: those as long as a phone number, and all longer ones."""
    for match in chain.from_iterable(pattern.finditer(text) for pattern in NUMBERS):
        if sum(map(str.isdecimal, match[0])) <= _PHONE_DIGITS:
            yield NUMBER_SCORE, Span(*match.span(), "PHONE_NUMBER")
        else:
            yield LONG_NUMBER_SCORE, Span(*match.span(), LONG_NUMBER)
    for match in LONG_NUMBERS.finditer(text):
        yield LONG_NUMBER_SCORE, Span(*match.span(), LONG_NUMBER)
