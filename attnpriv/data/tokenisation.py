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
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, models, pre_tokenizers

from attnpriv.data.spans import sensitive_tokens
from attnpriv.errors import InputError
from attnpriv.modality import Place
from attnpriv.spans import Span

# The tokens that pad a batch, begin a text and end it.
BERT_TOKENS = ("[PAD]", "[CLS]", "[SEP]")
MPNET_TOKENS = ("<pad>", "<s>", "</s>")
ADDED = BERT_TOKENS[1:]  # the names that users see for the two special tokens of any tokeniser


@dataclass(frozen=True, slots=True)
class Encoding:
    """One tokenised text, special tokens included, not padded.

    Attributes:
        ids: the special token that begins a text, such as [CLS], the tokens, and the special token
            that ends it.
        places: the ``(start, end)`` of each id in characters of the original text; None for the two
            special tokens, which the model added.
    """

    ids: tuple[int, ...]
    places: tuple[Place | None, ...]

    @property
    def size(self) -> int:
        """How many tokens there are, those that the model added counted."""
        return len(self.ids)

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

    Raises:
        InputError: vocab_size < 4.
    """

    pad_id = 0
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
        room = _room_for_tokens(max_length)
        _check_unicode(text)
        pieces = _first_pieces(text, room)
        ids = [
            self._id(piece, _continues(previous, end, piece, start))
            for (previous, (_, end)), (piece, (start, _)) in pairwise([("", (0, 0)), *pieces])
        ]
        return _wrap(self._cls_id, ids, [place for _, place in pieces], self._sep_id)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts; see ``Tokenizer``."""
        return [self.encode(text, max_length) for text in texts]

    def _id(self, piece: str, continues: bool) -> int:
        normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", piece).casefold())
        key = ("##" if continues else "") + normal
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")
        return self._first_free_id + number % (self.vocab_size - self._first_free_id)


class WordPieceTokenizer:
    """The public WordPiece vocabulary of a pretrained encoder, read from its tokenizer.json.

    Literal ``[SEP]``, ``[PAD]`` and the like inside a text are ordinary characters, so that no
    text can forge a special token; here this differs from the default of ``transformers``.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.vocab_size: int = tokenizer.get_vocab_size()
        self.unknown_id: int | None = tokenizer.token_to_id(tokenizer.model.unk_token)
        # MPNet's vocabulary has BERT's special tokens too, as words like others.
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        names = MPNET_TOKENS if special.issuperset(MPNET_TOKENS) else BERT_TOKENS
        self.pad_id, self._cls_id, self._sep_id = map(self._special_id, names)

    @classmethod
    def from_file(cls, path: str | Path) -> WordPieceTokenizer:
        """Read a Hugging Face tokenizer.json.

        Raises:
            InputError: the file is missing, or as ``from_bytes``.
        """
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise InputError(f"expected a tokenizer.json at {path}: {error.strerror}") from error
        return cls.from_bytes(content, path)

    @classmethod
    def from_bytes(cls, content: bytes, source: str | Path) -> WordPieceTokenizer:
        """Read the content of a Hugging Face tokenizer.json; ``source`` is for messages.

        Raises:
            InputError: it is not a tokeniser or not WordPiece, it lacks one of [PAD], [CLS] and
                [SEP] (unless it has <pad>, <s> and </s>), or it has no token for unknown words.
        """
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises nothing more specific
            raise InputError(f"expected a tokenizer.json at {source}: {error}") from error
        if not isinstance(tokenizer.model, models.WordPiece):
            kind = type(tokenizer.model).__name__
            raise InputError(f"expected a WordPiece tokenizer at {source}, got {kind}")
        made = cls(tokenizer)
        if made.unknown_id is None:
            raise InputError(f"expected a token for unknown words in {source}, got none")
        return made

    @property
    def largest_id(self) -> int:
        """The largest id that a text may produce."""
        return max(self._tokenizer.get_vocab().values())

    def encode(self, text: str, max_length: int) -> Encoding:
        """Tokenise one text; see ``Tokenizer``."""
        room = _room_for_tokens(max_length)
        _check_unicode(text)
        return self._cut(self._tokenizer.encode(text, add_special_tokens=False), room)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts on all cores; see ``Tokenizer``."""
        room = _room_for_tokens(max_length)
        for text in texts:
            _check_unicode(text)
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [self._cut(each, room) for each in found]

    def _cut(self, found: tokenizers.Encoding, room: int) -> Encoding:
        return _wrap(self._cls_id, found.ids[:room], found.offsets[:room], self._sep_id)

    def _special_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise InputError(f"expected a tokenizer with the token {token}, got one without it")
        return int(token_id)


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


def _room_for_tokens(max_length: int) -> int:
    if max_length < 2:
        raise InputError(f"expected max_length >= 2, got {max_length}")
    return max_length - 2


def _check_unicode(text: str) -> None:
    """Refuse lone surrogates, for which the library has unclear errors of its own."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"the text is not valid Unicode at character {error.start}") from None


def _wrap(cls_id: int, ids: Sequence[int], places: Sequence[Place], sep_id: int) -> Encoding:
    return Encoding((cls_id, *ids, sep_id), (None, *places, None))
