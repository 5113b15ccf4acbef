"""Whether there is anything to read in a text."""

from __future__ import annotations

import unicodedata

# Letters and a symbol by their category that no font draws: fillers of Hangul, and empty Braille.
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
# Pictographs stand here. Those newer than Python's Unicode tables have no category there yet.
_PICTOGRAPHS = range(0x1F000, 0x1FB00)


def has_visible(text: str) -> bool:
    r"""Whether a text has a character that is seen when it stands alone.

    Letters, digits, punctuation and symbols are, emoji among them. White space, control and format
    characters, accents without a letter, private and unassigned code points are not.

    >>> has_visible("\u200b?"), has_visible("\x00 \ufeff\u0301"), has_visible("")
    (True, False, False)
    """
    return any(map(_is_visible, set(text)))  # hostile texts repeat themselves


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cn":
        return ord(character) in _PICTOGRAPHS
    return category[0] not in "CMZ" and character not in _BLANK
