"""Texts in one spelling before they are tokenised, with places in the text as it was sent.

::

    "сl\u200bick"  ──►  "click"     the с is Cyrillic, and a zero-width space stands after the l

Characters that are not seen are removed, then Unicode's NFKC makes one of many forms of a letter,
then letters of other scripts become the ASCII letters that they look like: in words that hold an
ASCII letter, and in words of nothing but such letters where most letters of the text are ASCII.

Claim: a text in ASCII stays as it is, and each character of the result comes from the place in the
original that is told. Not covered: what detectors of personal data read, which is the original;
lookalikes that are not in ``lookalikes.LOOKALIKES``, misspellings, other alphabets' own confusions.
What is removed can carry meaning: joiners in Persian, Indic scripts and emoji, text direction.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attnpriv.data.lookalikes import LOOKALIKES
from attnpriv.data.tokenisation import Encoding, Tokenizer, check_unicode
from attnpriv.spans import Place

# Default-ignorable format characters, fillers and variation selectors of Unicode.
UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_FOLDED = str.maketrans({other: one for one, others in LOOKALIKES.items() for other in others})
_WORD = re.compile(r"\w+")
_LETTER = re.compile(r"[^\W\d_]")
_ASCII_LETTER = re.compile("[A-Za-z]")


@dataclass(frozen=True)
class Normalised:
    """A text in one spelling.

    Attributes:
        text: what is tokenised.
        origins: for each of its characters, where in the original text it comes from.
    """

    text: str
    origins: Sequence[Place]

    def place(self, start: int, end: int) -> Place:
        """Where ``text[start:end]``, which is not empty, stands in the original."""
        return self.origins[start][0], self.origins[end - 1][1]


def normalise(text: str) -> Normalised:
    """The text in one spelling."""
    if text.isascii():
        return Normalised(text, [(i, i + 1) for i in range(len(text))])
    pieces, origins = [], list[Place]()
    for cluster, place in _clusters(text):
        composed = unicodedata.normalize("NFKC", cluster)
        pieces.append(composed)
        origins += [place] * len(composed)
    return Normalised(_fold("".join(pieces)), origins)


def _clusters(text: str) -> Iterator[tuple[str, Place]]:
    """Stretches of what is seen that NFKC composes each by itself, with their places."""
    cluster, start, end = "", 0, 0
    for i, character in enumerate(text):
        if not character.isascii() and UNSEEN.match(character):
            continue
        if cluster and _stands_apart(cluster, character):
            yield cluster, (start, end)
            cluster = ""
        start = start if cluster else i
        cluster, end = cluster + character, i + 1
    if cluster:
        yield cluster, (start, end)


def _stands_apart(cluster: str, character: str) -> bool:
    """Whether NFKC composes a character with nothing before it."""
    if character.isascii():
        return True
    together = unicodedata.normalize("NFKC", cluster + character)
    apart = [unicodedata.normalize("NFKC", each) for each in (cluster, character)]
    return not unicodedata.combining(apart[1][:1] or "a") and together == "".join(apart)


def _fold(text: str) -> str:
    """ASCII letters in the place of those that look like them; no character comes or goes."""
    ascii_letters = len(_ASCII_LETTER.findall(text))
    latin = 2 * ascii_letters > len(_LETTER.findall(text))

    def folded(match: re.Match[str]) -> str:
        word = match.group()
        if word.isascii():
            return word
        whole = word.translate(_FOLDED)
        return whole if _ASCII_LETTER.search(word) or (latin and whole.isascii()) else word

    return _WORD.sub(folded, text)


class NormalisingTokenizer:
    """A tokeniser that reads texts in one spelling; its places are in the texts as they were sent.

    Attributes:
        inner: what tokenises the normalised text.
    """

    def __init__(self, inner: Tokenizer) -> None:
        self.inner = inner

    @property
    def vocab_size(self) -> int:
        """Number of ids of ``inner``."""
        return self.inner.vocab_size

    @property
    def pad_id(self) -> int:
        """As of ``inner``."""
        return self.inner.pad_id

    @property
    def mask_id(self) -> int:
        """As of ``inner``."""
        return self.inner.mask_id

    @property
    def unknown_id(self) -> int | None:
        """As of ``inner``."""
        return self.inner.unknown_id

    def encode(self, text: str, max_length: int) -> Encoding:
        """Tokenise one text; see ``Tokenizer``."""
        return self.encode_batch([text], max_length)[0]

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts; see ``Tokenizer``."""
        for text in texts:
            check_unicode(text)
        normal = [normalise(text) for text in texts]
        found = self.inner.encode_batch([each.text for each in normal], max_length)
        return [_in_original(*each) for each in zip(found, normal, strict=True)]


def _in_original(encoding: Encoding, normal: Normalised) -> Encoding:
    places = (None if place is None else normal.place(*place) for place in encoding.places)
    return Encoding(encoding.ids, tuple(places))
