"""Texts to token ids with their places in the text. Nothing here is ever fitted to a data set.

Both tokenisers are fixed before any private text is seen, and no text changes their state. So their
vocabulary costs no privacy budget, and one object may serve many threads.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, pre_tokenizers

from attnpriv.data.spans import sensitive_tokens
from attnpriv.errors import InputError
from attnpriv.spans import Place, Span

ADDED = ("[CLS]", "[SEP]")  # what users see for the two special tokens of any tokeniser


@dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenised text, special tokens included, not padded.

    Attributes:
        ids: the special token that begins a text, such as [CLS], the tokens, and the special token
            that ends it.
        places: the ``(start, end)`` of each id in characters of the original text, which several
            may share; None for the two special tokens, which the model added.
    """

    ids: tuple[int, ...]
    places: tuple[Place | None, ...]

    @property
    def values(self) -> tuple[int, ...]:
        """The ids."""
        return self.ids

    @property
    def size(self) -> int:
        """How many tokens there are, those that the model added counted."""
        return len(self.ids)

    @property
    def extents(self) -> list[int]:
        """Characters of each token of the text."""
        return [end - start for start, end in filter(None, self.places)]

    def marks(self, regions: Iterable[Span]) -> NDArray[np.bool_]:
        """Which tokens overlap one of the spans, [T]; see ``attnpriv.data.spans``."""
        return np.array(sensitive_tokens(self.places, regions), dtype=np.bool_)

    @property
    def end(self) -> int:
        """Up to which character of the text its tokens reach."""
        return max((end for _, end in filter(None, self.places)), default=0)

    def words(self, text: str) -> list[str]:
        """What stands at each position of the text that was tokenised; ``ADDED`` for the others."""
        added = iter(ADDED)
        return [next(added) if place is None else text[slice(*place)] for place in self.places]


class Tokenizer(Protocol):
    """What the models need of a tokeniser.

    ``encode`` and ``encode_batch`` cut to ``max_length`` ids, the two special ones included, and
    raise InputError if ``max_length < 2`` or a text is not valid Unicode.
    """

    @property
    def vocab_size(self) -> int:
        """Number of ids; every id is below it."""

    @property
    def pad_id(self) -> int:
        """The id that pads batches; no text produces it."""

    @property
    def mask_id(self) -> int:
        """The id that stands for what is hidden from the model; no text produces it."""

    @property
    def unknown_id(self) -> int | None:
        """The one id of all words that are not in the vocabulary; None where there are none."""

    def encode(self, text: str, max_length: int) -> Encoding:
        """Tokenise one text."""

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts in order; the same as ``encode`` on each."""


class HashTokenizer:
    """Tokens for the encoder from scratch: short pieces of text, hashed to ids.

    A piece is up to six letters, up to three digits, or one other character; combining marks stay
    with their letter. Longer words and numbers become several pieces, so that ``cancelled`` and
    ``cancellation`` share the first. The id is the BLAKE2b hash of the piece after NFKC and case
    folding, modulo the vocabulary. A piece that continues a word or number is hashed with a ``##``.

    Different pieces may share an id. Ids 0, 1, 2 are [PAD], [CLS], [SEP]; no text produces them.
    [PAD] stands for what is hidden, too: no model that learned from whole texts knows any mask.

    Raises:
        InputError: vocab_size < 4.
    """

    pad_id = 0
    mask_id = 0
    unknown_id = None  # every piece has a hash
    _cls_id = 1
    _sep_id = 2
    _first_free_id = 3

    def __init__(self, vocab_size: int = 8192) -> None:
        if vocab_size <= self._first_free_id:
            raise InputError(f"expected vocab_size > {self._first_free_id}, got {vocab_size}")
        self.vocab_size = vocab_size

    def encode(self, text: str, max_length: int) -> Encoding:
        """Tokenise one text; see ``Tokenizer``."""
        room = room_for_tokens(max_length)
        check_unicode(text)
        pieces = _first_pieces(text, room)
        ids = [
            self._id(piece, _continues(previous, end, piece, start))
            for (previous, (_, end)), (piece, (start, _)) in pairwise([("", (0, 0)), *pieces])
        ]
        return wrap(self._cls_id, ids, [place for _, place in pieces], self._sep_id)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts; see ``Tokenizer``."""
        return [self.encode(text, max_length) for text in texts]

    def _id(self, piece: str, continues: bool) -> int:
        normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold())
        key = ("##" if continues else "") + normal
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        return self._first_free_id + number % (self.vocab_size - self._first_free_id)


_PIECES = pre_tokenizers.Split(
    Regex(r"(?:\p{L}\p{M}*){1,6}|\p{N}{1,3}|\S"), behavior="removed", invert=True
)


def _first_pieces(text: str, count: int) -> list[tuple[str, tuple[int, int]]]:
    """The first pieces of a text with their offsets; reads little more text than they need.

    Cutting up a text of megabytes would block the interpreter until all of it is done.
    """
    size = 8 * (count + 1)
    while True:
        pieces: list[tuple[str, tuple[int, int]]] = _PIECES.pre_tokenize_str(text[:size])
        # Once another piece follows, the rest of the text cannot change the ones before it.
        if len(pieces) > count or size >= len(text):
            return pieces[:count]
        size *= 4


def _continues(previous: str, previous_end: int, piece: str, start: int) -> bool:
    """Whether a piece continues the word or the number of the piece before it."""
    if not previous or previous_end != start:
        return False
    return (previous[0].isalpha() and piece[0].isalpha()) or (
        previous[0].isnumeric() and piece[0].isnumeric()
    )


def room_for_tokens(max_length: int) -> int:
    """How many tokens fit between the two special ones; raises InputError if not even these do."""
    if max_length < 2:
        raise InputError(f"expected max_length >= 2, got {max_length}")
    return max_length - 2


def check_unicode(text: str) -> None:
    """Raise InputError for lone surrogates, for which ``tokenizers`` has unclear errors."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start}") from None


def wrap(cls_id: int, ids: Sequence[int], places: Sequence[Place], sep_id: int) -> Encoding:
    """Tokens and their places between the two special ones."""
    return Encoding((cls_id, *ids, sep_id), (None, *places, None))
