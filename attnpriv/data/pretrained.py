"""The tokeniser of a pretrained encoder, from its tokenizer.json, with places in the original text.

======================  ==========================================================================
kind                    encoders
======================  ==========================================================================
WordPiece               BERT, DistilBERT, MPNet
Unigram                 XLM-RoBERTa
byte-level BPE          RoBERTa
======================  ==========================================================================
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import models, pre_tokenizers
from torch import Tensor

from attnpriv.data.tokenisation import Encoding, check_unicode, room_for_tokens, wrap
from attnpriv.errors import InputError
from attnpriv.spans import Place

# For files that do not say which token pads, and which begin and end a text: their names.
PADDING = ("<pad>", "[PAD]")
MASKS = ("<mask>", "[MASK]")
ENDS = {"<pad>": ("<s>", "</s>"), "[PAD]": ("[CLS]", "[SEP]")}

_NOT_SPACE = re.compile(r"\S*")


class PretrainedTokenizer:
    """The public vocabulary of a pretrained encoder, read from its tokenizer.json.

    The ids are those of ``transformers``, but that literal ``[SEP]``, ``</s>`` and the like inside
    a text are ordinary characters, so that no text can forge a special token.

    The place of a token holds all characters that it was made of. So several tokens may share a
    place: the bytes of one character, or the letters of one ligature. White space around a token is
    no part of its place, unless it has nothing else. Characters that are dropped, such as accents
    and control characters, belong to the token that they touch; those between white space to none.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer, unknown_id: int | None) -> None:
        self._cls_id, self._sep_id, self.pad_id = _special_ids(tokenizer)
        tokenizer.encode_special_tokens = True  # only then are they ordinary in a text
        tokenizer.post_processor = None  # some move the places of tokens
        _forget_texts(tokenizer.model)
        self._tokenizer = tokenizer
        self.vocab_size: int = tokenizer.get_vocab_size()
        self.unknown_id = unknown_id
        self.mask_id = _mask_id(tokenizer, self.pad_id)
        added = tokenizer.get_added_tokens_decoder().items()
        special = {token_id for token_id, token in added if token.special} - {unknown_id}
        self._forbidden = special | {self.pad_id, self._cls_id, self._sep_id}

    @classmethod
    def from_file(cls, path: str | Path) -> PretrainedTokenizer:
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
    def from_bytes(cls, content: bytes, source: str | Path) -> PretrainedTokenizer:
        """Read the content of a Hugging Face tokenizer.json; ``source`` is for messages.

        Raises:
            InputError: it is not a tokeniser or of no kind above, it may meet characters for which
                it has no token, or it does not say which tokens begin a text, end it and pad.
        """
        try:
            tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises nothing more specific
            raise InputError(f"expected a tokenizer.json at {source}: {error}") from error
        return cls(tokenizer, _unknown_id(tokenizer, json.loads(content), source))

    @property
    def ends(self) -> tuple[int, int]:
        """The ids that begin and end each text."""
        return self._cls_id, self._sep_id

    def producible(self) -> Tensor:
        """All ids that the tokens of a text may have, in order; a few more may be among them.

        Claim: no text has another one. A piece that the tokeniser itself would cut, such as
        ``[unused0]``, stands in the vocabulary and in no text.
        """
        pieces = sorted(
            (token_id, piece) for piece, token_id in self._tokenizer.get_vocab().items()
        )
        return torch.tensor(
            [token_id for token_id, piece in pieces if self._may_stand(token_id, piece)]
        )

    @cached_property
    def words(self) -> dict[str, int]:
        """The words of letters that are one token, in small letters, each with its id."""
        pieces = sorted(self._tokenizer.get_vocab())
        words = sorted({word for piece in pieces if (word := piece.lstrip("▁Ġ")).isalpha()})
        small = [word for word in words if word == word.lower() and len(word) > 1]
        found = self._tokenizer.encode_batch(small, add_special_tokens=False)
        alone = {w: e.ids[0] for w, e in zip(small, found, strict=True) if len(e.ids) == 1}
        return {word: number for word, number in alone.items() if number != self.unknown_id}

    def _may_stand(self, token_id: int, piece: str) -> bool:
        if token_id == self.unknown_id:
            return True
        cut = self._tokenizer.pre_tokenizer
        whole = (
            not isinstance(self._tokenizer.model, models.WordPiece)
            or cut is None
            or (len(cut.pre_tokenize_str(piece.removeprefix("##"))) == 1)
        )
        return whole and token_id not in self._forbidden

    def check_ids(self, vocab_size: int) -> None:
        """Raise InputError if a text may produce an id for which a model has no embedding."""
        largest = max(self._tokenizer.get_vocab().values())
        if largest >= vocab_size:
            raise InputError(f"expected token ids below {vocab_size}, got {largest}")

    def encode(self, text: str, max_length: int) -> Encoding:
        """Tokenise one text; see ``Tokenizer``."""
        room = room_for_tokens(max_length)
        check_unicode(text)
        first = self._first(text)
        found = self._tokenizer.encode(text[first:], add_special_tokens=False)
        return self._cut(text, first, found, room)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise many texts on all cores; see ``Tokenizer``."""
        room = room_for_tokens(max_length)
        for text in texts:
            check_unicode(text)
        firsts = [self._first(text) for text in texts]
        found = self._tokenizer.encode_batch(
            [text[first:] for text, first in zip(texts, firsts, strict=True)],
            add_special_tokens=False,
        )
        return [self._cut(*each, room) for each in zip(texts, firsts, found, strict=True)]

    def _first(self, text: str) -> int:
        """How many characters are dropped before the first that is not.

        The offsets of ``tokenizers`` (0.23) do not count these with SentencePiece's normalisation.
        """
        normalizer = self._tokenizer.normalizer
        if normalizer is None:
            return 0
        dropped: dict[str, bool] = {}
        for number, character in enumerate(text):
            if character not in dropped:
                dropped[character] = not normalizer.normalize_str(character)
            if not dropped[character]:
                return number
        return len(text)

    def _cut(self, text: str, first: int, found: tokenizers.Encoding, room: int) -> Encoding:
        tokens = self._ordinary(found, first)
        kept = list(islice(tokens, room))
        reach = max((end for _, (_, end) in kept), default=0)
        limit = next((start for _, (start, _) in tokens if start >= reach), len(text))
        places = fit([place for _, place in kept], text, limit)
        return wrap(self._cls_id, [token_id for token_id, _ in kept], places, self._sep_id)

    def _ordinary(self, found: tokenizers.Encoding, first: int) -> Iterator[tuple[int, Place]]:
        """Ids and places in the whole text, with special tokens that stand in it spelled out.

        A Unigram model may have them in its vocabulary as pieces like others.
        """
        for token_id, (start, end) in zip(found.ids, found.offsets, strict=True):
            place = first + start, first + end
            if token_id in self._forbidden:
                yield from self._spelled(token_id, place)
            else:
                yield token_id, place

    def _spelled(self, token_id: int, place: Place) -> Iterator[tuple[int, Place]]:
        start, end = place
        piece = str(self._tokenizer.id_to_token(token_id))
        for i, character in enumerate(piece):
            of_one = (start + i, start + i + 1) if end - start == len(piece) else place
            for token in self._tokenizer.model.tokenize(character):
                if token.id not in self._forbidden:
                    yield token.id, of_one


def fit(places: Sequence[Place], text: str, limit: int) -> list[Place]:
    r"""Take white space from the ends of places, and add characters that no token has.

    Args:
        places: of tokens, by where they start.
        text: the original text.
        limit: where the next token starts, which is not among these; or where the text ends.

    Returns:
        The places, in the same order. Those that hold nothing but white space stay as they are.

    >>> fit([(0, 2), (4, 8)], "xy\u0301 word", 8)
    [(0, 3), (4, 8)]
    >>> fit([(0, 3), (3, 9)], "two\twords", 9)
    [(0, 3), (4, 9)]
    """
    inner = [_without_space(place, text) for place in places]
    solid = [text[slice(*place)].strip() != "" for place in inner]
    starts = sorted({*(start for start, _ in inner), limit})
    grown = [
        (start, _end(end, starts, text) if has_text else end)
        for (start, end), has_text in zip(inner, solid, strict=True)
    ]
    ends = sorted({0, *(end for _, end in grown)})
    return [
        (_start(start, ends, text) if has_text else start, end)
        for (start, end), has_text in zip(grown, solid, strict=True)
    ]


def _without_space(place: Place, text: str) -> Place:
    start, end = place
    piece = text[start:end]
    if not piece.strip():
        return place
    return end - len(piece.lstrip()), start + len(piece.rstrip())


def _end(end: int, starts: Sequence[int], text: str) -> int:
    """Up to where what follows a token is neither white space nor of the next token."""
    following = bisect_left(starts, end)
    limit = starts[following] if following < len(starts) else end
    found = _NOT_SPACE.match(text, end, limit)
    return found.end() if found else end


def _start(start: int, ends: Sequence[int], text: str) -> int:
    """From where on what precedes a token is neither white space nor of the token before."""
    gap = text[ends[bisect_right(ends, start) - 1] : start]
    return start - len(gap.rsplit(maxsplit=1)[-1]) if gap and not gap[-1].isspace() else start


def _unknown_id(
    tokenizer: tokenizers.Tokenizer, file: dict[str, Any], source: str | Path
) -> int | None:
    """The id of what is not in the vocabulary, or None where every byte is.

    Raises:
        InputError: the tokeniser is of another kind, or has no token for some character.
    """
    token: str | None
    match tokenizer.model:
        case models.Unigram():
            number: int | None = file["model"].get("unk_id")
            token = None if number is None else tokenizer.id_to_token(number)
        case models.WordPiece() as model:
            token = model.unk_token
        case models.BPE() as model if _is_byte_level(file):
            token = model.unk_token
            if tokenizer.get_vocab().keys() >= set(pre_tokenizers.ByteLevel.alphabet()):
                return None if token is None else tokenizer.token_to_id(token)
        case model:
            kinds, got = "WordPiece, Unigram or byte-level BPE", type(model).__name__
            raise InputError(f"expected a tokenizer of kind {kinds} at {source}, got {got}")
    unknown = None if token is None else tokenizer.token_to_id(token)
    if unknown is None:
        raise InputError(f"expected a token for unknown words in {source}, got none")
    return unknown


def _is_byte_level(file: dict[str, Any]) -> bool:
    """Whether words are cut into bytes before the model sees them."""
    outer = file.get("pre_tokenizer") or {}
    return any(part.get("type") == "ByteLevel" for part in outer.get("pretokenizers", [outer]))


def _forget_texts(model: models.Model) -> None:
    """Let a text's tokens depend on nothing else, and its time on no text before it."""
    if isinstance(model, models.BPE):
        model.dropout = None
    if isinstance(model, models.BPE | models.Unigram):
        model._resize_cache(0)  # of the words that it met


def _special_ids(tokenizer: tokenizers.Tokenizer) -> tuple[int, int, int]:
    """The ids of the tokens that begin a text, end it and pad; the tokeniser pads and cuts no more.

    Raises:
        InputError: it adds other than one token at each end, or does not say which token pads.
    """
    padding = _padding_token(tokenizer)
    pad_id = _special_id(tokenizer, padding)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.post_processor is None:
        names = ENDS.get(padding, ENDS["[PAD]"])
        first, last = (_special_id(tokenizer, name) for name in names)
        return first, last, pad_id
    added = tokenizer.encode("a")
    if added.special_tokens_mask != [1, *[0] * (len(added.ids) - 2), 1]:
        count = sum(added.special_tokens_mask)
        raise InputError(
            f"expected a tokenizer that adds one token at each end, got {count} in all"
        )
    return added.ids[0], added.ids[-1], pad_id


def _mask_id(tokenizer: tokenizers.Tokenizer, pad_id: int) -> int:
    """The id of what the encoder was pretrained to guess; of an encoder without one, padding."""
    added = tokenizer.get_added_tokens_decoder().items()
    masks = (number for number, token in added if token.special and token.content in MASKS)
    return next(masks, pad_id)


def _padding_token(tokenizer: tokenizers.Tokenizer) -> str:
    """What the file says pads; else what it adds to the vocabulary for that, or has there."""
    if tokenizer.padding is not None:
        return str(tokenizer.padding["pad_token"])
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    return next((name for name in PADDING if name in added), PADDING[-1])


def _special_id(tokenizer: tokenizers.Tokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    if token_id is None:
        raise InputError(f"expected a tokenizer with the token {token}, got one without it")
    return int(token_id)
