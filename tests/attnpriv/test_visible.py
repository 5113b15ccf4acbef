from __future__ import annotations

import sys
import unicodedata

import pytest

from attnpriv.visible import has_visible

INVISIBLE = [
    *("", " ", "\n\t\r", "\x00", "\x1b", "\u200b", "\ufeff", "\u00ad", "\u2060", "\u00a0"),
    *("\u3000", "\u0301", "\ufe0f", "\u20dd", "\ue000", "\U000e0041", "\ud800", "\u3164", "\uffff"),
]
VISIBLE = [
    *("a", "7", "\u0667", ".", "+", "\u20ac", "\u00e9", "\u4e2d", "\u2764\ufe0f", "\U0001f600"),
    *("\U0001f1e8\U0001f1ed", "\U0001faff"),  # a flag; a pictograph that Python may not know yet
]


@pytest.mark.parametrize("text", INVISIBLE)
def test_a_text_of_nothing_that_is_seen_has_nothing_visible(text: str) -> None:
    assert not has_visible(text)
    assert not has_visible(text * 3 + " \u0301")


@pytest.mark.parametrize("text", VISIBLE)
def test_one_character_that_is_seen_is_enough(text: str) -> None:
    assert has_visible(text)
    assert has_visible("\x00\u200b " + text)


def test_every_character_goes_by_its_category_but_for_a_few() -> None:
    characters = list(map(chr, range(sys.maxunicode + 1)))
    seen = set(filter(has_visible, characters))
    by_category = {c for c in characters if unicodedata.category(c)[0] not in "CMZ"}
    assert by_category - seen == set("\u115f\u1160\u2800\u3164\uffa0")
    assert {unicodedata.category(c) for c in seen - by_category} <= {"Cn"}
    assert all("\U0001f000" <= c < "\U0001fb00" for c in seen - by_category)
