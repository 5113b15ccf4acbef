"""How much of some texts a tokeniser has no words for.

A WordPiece vocabulary turns every word that it cannot spell into one and the same unknown token, so
that a model cannot tell these words apart. With an English vocabulary this befalls most of Chinese.
Not seen here: a script of which the vocabulary has the letters and hardly a word, such as Arabic or
Cyrillic with an English vocabulary. There each letter is a token that the model knows and that says
little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from attnpriv.data.tokenisation import Encoding, Tokenizer

NOTICEABLE = 0.01
"""Above this share of the characters it is worth a warning; emoji alone seldom come to that."""


@dataclass(frozen=True)
class Unknown:
    """What of some texts became the unknown token, as far as a model reads them.

    These are exact figures about the texts: where those are private, they belong on the screen of
    whoever holds the data and nowhere else.

    Attributes:
        share: of all their characters but white space; 0 where there is none.
        texts: how many texts there are.
        mostly: of how many of them it is more than half.
    """

    share: float
    texts: int
    mostly: int

    def __str__(self) -> str:
        return (
            f"{100 * self.share:.1f} % of their characters are in words that it does not know and "
            f"cannot tell apart, and {self.mostly} of {self.texts} texts are mostly such words"
        )


def unknown_in(
    tokenizer: Tokenizer, texts: Sequence[str], encodings: Sequence[Encoding]
) -> Unknown:
    """Count what of texts, tokenised as given, is unknown."""
    if tokenizer.unknown_id is None:
        return Unknown(0.0, len(texts), 0)
    of_all, of_unknown, mostly = 0, 0, 0
    for text, encoding in zip(texts, encodings, strict=True):
        size = _visible(text[: encoding.end])
        unknown = sum(_visible(text[slice(*p)]) for p in _places(encoding, tokenizer.unknown_id))
        of_all, of_unknown, mostly = (
            of_all + size,
            of_unknown + unknown,
            mostly + (2 * unknown > size),
        )
    return Unknown(of_unknown / max(of_all, 1), len(texts), mostly)


def has_known(tokenizer: Tokenizer, encoding: Encoding) -> bool:
    """Whether a tokenised text has a token that stands in the text and is not the unknown one."""
    return any(
        place is not None and token != tokenizer.unknown_id
        for token, place in zip(encoding.ids, encoding.places, strict=True)
    )


def _places(encoding: Encoding, token: int) -> list[tuple[int, int]]:
    """Where the text has become a token."""
    pairs = zip(encoding.ids, encoding.places, strict=True)
    return [place for found, place in pairs if found == token and place is not None]


def _visible(text: str) -> int:
    return len("".join(text.split()))
