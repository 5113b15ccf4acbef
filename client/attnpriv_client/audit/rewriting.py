"""Cutting texts into values of personal data, words and the rest, and replacing some of these."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

from attnpriv_client.audit.rows import Span

WORD = ""  # the kind of words that are not sensitive; no entity type is empty


@dataclass(frozen=True)
class Piece:
    """A stretch of a text.

    Attributes:
        text: the stretch.
        kind: an entity type, ``WORD``, or None if the stretch is never replaced.
    """

    text: str
    kind: str | None


Pieces = tuple[Piece, ...]


def cut(text: str, spans: Iterable[Span]) -> Pieces:
    """The pieces of a text in order; joined, they are the text again.

    Only what stands between white space counts as a word. Overlapping spans become a single piece
    that is never replaced.

    >>> [piece.kind for piece in cut("Hi Bo, hello", [Span(3, 5, "PERSON")])]
    ['', None, 'PERSON', None, None, '']
    """
    pieces, at = [], 0
    for start, end, kind in _apart(spans):
        pieces += [*_words(text, at, start), Piece(text[start:end], kind)]
        at = end
    return (*pieces, *_words(text, at, len(text)))


def join(pieces: Iterable[Piece]) -> str:
    """The text of pieces."""
    return "".join(piece.text for piece in pieces)


def rewrite(pieces: Pieces, texts: Mapping[int, str]) -> Pieces:
    """The pieces with some texts replaced, by their positions."""
    return tuple(
        replace(piece, text=texts[i]) if i in texts else piece for i, piece in enumerate(pieces)
    )


def _apart(spans: Iterable[Span]) -> list[tuple[int, int, str | None]]:
    """The spans in order, without overlaps: overlapping ones become one without a type."""
    found: list[tuple[int, int, str | None]] = []
    for span in sorted(spans, key=lambda each: each.start):
        if found and span.start < found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], span.end), None)
        else:
            found.append((span.start, span.end, span.entity_type))
    return found


def _words(text: str, start: int, end: int) -> Iterator[Piece]:
    """The pieces of a stretch without spans."""
    for match in re.compile(r"\S+|\s+").finditer(text, start, end):
        around = text[match.start() - 1 : match.start()] + text[match.end() : match.end() + 1]
        alone = not match[0].isspace() and not around.strip()
        yield Piece(match[0], WORD if alone else None)


class Pool:
    """Values to replace others with, by kind and number of characters."""

    def __init__(self, documents: Iterable[Pieces]) -> None:
        values: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        for piece in (piece for pieces in documents for piece in pieces):
            if piece.kind is not None:
                values[piece.kind][len(piece.text)].add(piece.text)
        self._values = {
            kind: {length: sorted(same) for length, same in lengths.items()}
            for kind, lengths in values.items()
        }

    def draw(self, piece: Piece, own: Collection[str], rng: Random) -> str | None:
        """Another value of the same kind, with the nearest length that there is.

        Args:
            piece: the piece to replace.
            own: the values of its document, case-folded; none of them is drawn.
            rng: chooses between values of the same length.
        """
        lengths = self._values.get(piece.kind or WORD, {})
        for length in sorted(lengths, key=lambda n: (abs(n - len(piece.text)), n)):
            others = [value for value in lengths[length] if value.casefold() not in own]
            if others:
                return rng.choice(others)
        return None


def draw_words(
    pieces: Pieces, characters: int, pool: Pool, own: Collection[str], rng: Random
) -> dict[int, str] | None:
    """Replacements for random words of at least so many characters; None if there are too few."""
    words = [i for i, piece in enumerate(pieces) if piece.kind == WORD]
    rng.shuffle(words)
    chosen: dict[int, str] = {}
    for i in words:
        value = pool.draw(pieces[i], own, rng)
        if characters > 0 and value is not None:
            chosen[i] = value
            characters -= len(pieces[i].text)
    return None if characters > 0 else chosen


def mentions(pieces: Sequence[Piece]) -> dict[Piece, list[int]]:
    """Each value of personal data with its positions."""
    found: dict[Piece, list[int]] = defaultdict(list)
    for i, piece in enumerate(pieces):
        if piece.kind:
            found[piece].append(i)
    return dict(found)
