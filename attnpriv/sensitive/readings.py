"""A text cut into pieces, and a piece read in another way, without moving a character.

A language model was trained on edited prose. Forms, signatures and quoted mails have a name alone
in a line, and many people write without capitals, or with nothing else. Read as prose, much of that
is found too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Some patterns take time that grows with the square of a text, so that they see no more at once.
PIECE = 4096
OVERLAP = 512  # characters: what is no longer is whole in one piece at least

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_MARKS = re.compile(r"^[^\w\s]+(?=\s*\w)", re.MULTILINE)
_LINE_END = re.compile(r"\n(?=\s*\S)")
_SHOUTED = 4  # letters; shorter words in capitals are mostly abbreviations
# Words that no name consists of; what else is written small may be part of one.
_SMALL = """
    a about after all also am an and any are as at be been before but by can could did do does
    for from had has have he her here him his how i if in into is it its just like me more my no
    not now of on one or our out she should so some than that the their them then there these
    they this to up us was we were what when where which who why will with would you your
"""
_SMALL_WORDS = frozenset(_SMALL.split())


def pieces(text: str) -> Iterator[tuple[int, str]]:
    """Overlapping pieces of a text, each with the place where it starts."""
    for start in range(0, max(len(text) - OVERLAP, 1), PIECE - OVERLAP):
        yield start, text[start : start + PIECE]


def as_prose(text: str) -> str:
    """The text with its lines joined by commas, their marks blanked, and its case as in prose.

    Every character stays where it is.

    >>> as_prose("> ANNA SMITH" + chr(10) + "> 12 Elm Rd")
    '  Anna Smith,  12 Elm Rd'
    """
    joined = _LINE_END.sub(",", _MARKS.sub(lambda match: " " * len(match[0]), text))
    words = _WORD.findall(joined)
    no_capitals = not any(word[0].isupper() and not word.isupper() for word in words)
    return _WORD.sub(lambda match: _recase(match[0], no_capitals), joined)


def _recase(word: str, no_capitals: bool) -> str:
    shouted = word.isupper() and len(word) >= _SHOUTED
    if not shouted and (not no_capitals or word.lower() in _SMALL_WORDS):
        return word
    return _same_length(word[0].upper(), word[0]) + "".join(
        _same_length(letter.lower(), letter) for letter in word[1:]
    )


def _same_length(changed: str, letter: str) -> str:
    """Some letters change into two, such as ß; they stay as they are."""
    return changed if len(changed) == 1 else letter
