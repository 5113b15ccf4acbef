"""What is searched besides a text as it was sent, so that its spelling hides nothing.

A number with a character between its digits that nobody sees, or in full-width digits, is a number
to whoever reads it. So a text is searched a second time in one spelling (``data.normalisation``),
and what is found there is hidden in the text as it was sent, with all the marks on it.

Claim: where one spelling changes nothing, nothing is searched twice, and a text in ASCII never is.
Not covered: what ``data.normalisation`` does not undo.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace

from attnpriv.data.normalisation import UNSEEN, Normalised, normalise
from attnpriv.data.records import Span


def in_one_spelling(text: str) -> Normalised | None:
    """The text in one spelling, without marks on ASCII characters; None where that is the text."""
    if text.isascii():
        return None
    normal = normalise(text)
    kept = [i for i in range(len(normal.text)) if not _is_mark_on_ascii(normal.text, i)]
    plain = "".join(normal.text[i] for i in kept)
    return None if plain == text else Normalised(plain, [normal.origins[i] for i in kept])


def in_original(span: Span, normal: Normalised) -> Span:
    """A span of a normalised text in the text as it was sent."""
    start, end = normal.place(span.start, span.end)
    return replace(span, start=start, end=end)


def with_marks(span: Span, text: str) -> Span:
    """The span and the marks that follow it, with the unseen characters among them.

    Unseen characters alone, such as those that set the direction of what comes next, stay.
    """
    end = span.end
    while end < len(text) and not text[end].isascii() and _clings(text[end]):
        end += 1
    marked = any(not UNSEEN.match(character) for character in text[span.end : end])
    return replace(span, end=end) if marked else span


def _is_mark_on_ascii(text: str, i: int) -> bool:
    """Whether a character is one of the marks that follow an ASCII character."""
    if not unicodedata.combining(text[i]):
        return False
    before = i - 1
    while before >= 0 and unicodedata.combining(text[before]):
        before -= 1
    return before >= 0 and text[before].isascii()


def _clings(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me") or bool(UNSEEN.match(character))
