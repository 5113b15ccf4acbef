"""Tokenisers of every kind against ``transformers``, and the places of their tokens."""

from __future__ import annotations

import json
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, processors

from attnpriv.data import Encoding, PretrainedTokenizer, Span
from attnpriv.errors import InputError
from tests.attnpriv.data.trained_tokenizers import KINDS, LINES, NAMES, byte_pairs, ours, train

TEXTS = (
    *LINES,
    "The film, in one word: awful!!  Two  spaces, and one behind. ",
    " leads with a space",
    "Zoë Müller, Straße 12, 50667 Köln",
    "Zoe\u0308 Mu\u0308ller, Stra\u00dfe; cafe\u0301",
    "\u0301 stands alone",
    "👩\u200d👩\u200d👧 and 🇩🇪 and 👍🏽, in one text",
    "这家餐厅,服务非常好。再来!",
    "مَرْحَبًا بِالْعَالَمِ",
    "हिन्दी और 한국어",
    "tabs\tand\nnew lines\r\n\n\x0bhere",
    "a\u00a0b\u2003c\u3000d\u200be",
    "\x01\x01dropped, \x01in front",
    "\x00nul \x01 and\x1cothers\x7f",
    "oﬃce ﬁlm ½ … № ℌ",
    "so\u00adft hyphens, zero\u200bwidth and \ufeff marks",
    "İstanbul, ǅ and ŉ",
    "e\u0301",
    "",
    " \t\n",
)
UNITS = (
    *(
        "a",
        "word",
        "İ",
        "ß",
        "ﬁ",
        "ﬃ",
        "e\u0301",
        "\u0301",
        "\u0323",
        "中",
        "한",
        "हिन्दी",
        "½",
        "…",
    ),
    *(
        "7",
        "٣",
        ".",
        "<s>",
        "</s>",
        "<pad>",
        "＜s＞",
        "[SEP]",
        "😀",
        "👩\u200d👩\u200d👧",
        "▁",
        "Ġ",
    ),
    *(" ", "\u00a0", "\n", "\t", "\x00", "\x01", "\x1c", "\u00ad", "\u200b", "\ufeff"),
)
ANY_TEXT = st.text() | st.lists(st.sampled_from(UNITS)).map("".join)


class Pair(NamedTuple):
    theirs: tokenizers.Tokenizer
    ours: PretrainedTokenizer


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest) -> Pair:
    trained = train(request.param)
    return Pair(trained, ours(trained))


def inner(encoding: Encoding) -> list[tuple[int, int]]:
    assert encoding.places[0] is encoding.places[-1] is None
    return [place for place in encoding.places[1:-1] if place is not None]


def vanishes(text: str, tokenizer: tokenizers.Tokenizer) -> bool:
    """Whether nothing is left of a text once it is normalised."""
    return tokenizer.normalizer is not None and not tokenizer.normalizer.normalize_str(text).strip()


def check_places(encoding: Encoding, text: str, tokenizer: tokenizers.Tokenizer) -> None:
    """All in the text, in order, around no white space, and none of the words left out."""
    places = inner(encoding)
    assert len(places) == len(encoding.ids) - 2
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert places == sorted(places)
    assert [end for _, end in places] == sorted(end for _, end in places)
    for start, end in places:
        piece = text[start:end]
        assert piece == piece.strip() or piece.isspace()
    covered = {i for start, end in places for i in range(start, end)}
    missed = "".join(" " if i in covered else character for i, character in enumerate(text))
    for word in missed.split():
        assert vanishes(word, tokenizer)
    for word, start in words_of(text):
        if not vanishes(word, tokenizer):
            assert covered.issuperset(range(start, start + len(word)))


def words_of(text: str) -> list[tuple[str, int]]:
    found, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        found.append((word, at))
        at += len(word)
    return found


@pytest.mark.parametrize("longest", [10_000, 64, 7, 2])
def test_ids_are_those_of_transformers(pair: Pair, longest: int) -> None:
    from transformers import PreTrainedTokenizerFast

    reference = PreTrainedTokenizerFast(tokenizer_object=pair.theirs)
    theirs = reference(list(TEXTS), truncation=True, max_length=longest)["input_ids"]
    found = pair.ours.encode_batch(TEXTS, longest)
    assert [list(encoding.ids) for encoding in found] == theirs


@pytest.mark.parametrize("text", TEXTS, ids=ascii)
def test_every_token_has_its_place(pair: Pair, text: str) -> None:
    check_places(pair.ours.encode(text, 10_000), text, pair.theirs)


@settings(max_examples=50)
@given(ANY_TEXT)
def test_every_token_of_any_text_has_its_place(pair: Pair, text: str) -> None:
    check_places(pair.ours.encode(text, 10_000), text, pair.theirs)


@settings(max_examples=50)
@given(ANY_TEXT, st.integers(2, 24))
def test_cutting_moves_no_place(pair: Pair, text: str, longest: int) -> None:
    whole, cut = pair.ours.encode(text, 10_000), pair.ours.encode(text, longest)
    kept = min(longest, len(whole.ids)) - 1
    assert cut.ids == (*whole.ids[:kept], whole.ids[-1])
    assert cut.places == (*whole.places[:kept], None)


@settings(max_examples=50)
@given(st.lists(ANY_TEXT, max_size=4), st.integers(2, 20))
def test_a_batch_is_its_texts_one_by_one(pair: Pair, texts: list[str], longest: int) -> None:
    expected = [pair.ours.encode(text, longest) for text in texts]
    assert pair.ours.encode_batch(texts, longest) == expected


@pytest.mark.parametrize(
    "word",
    ["film", "Müller", "Mu\u0308ller", "Straße", "oﬃce", "👩\u200d👩\u200d👧", "你好", "1234"],
)
def test_the_span_of_a_word_takes_its_tokens_and_no_other(pair: Pair, word: str) -> None:
    """Which these are, the texts say that end before and after the word."""
    for before, space in product(["a", "the lazy dog,", "…", "\x01x"], [" ", "\n", "\t"]):
        start = len(before) + len(space)
        text = f"{before}{space}{word} and so on"
        first = pair.ours.encode(before, 1000).size - 1
        last = pair.ours.encode(text[: start + len(word)], 1000).size - 1
        encoding = pair.ours.encode(text, 1000)
        marked = np.flatnonzero(encoding.marks([Span(start, start + len(word), "X")])).tolist()
        words = encoding.words(text)
        assert marked == [t for t in range(first, last) if not words[t].isspace()]
        assert marked
        assert not any("Ġ" in each or "▁" in each for each in words)


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_cannot_be_forged(kind: str) -> None:
    """Neither as they are nor by a normalisation. A Unigram model has them among its pieces."""
    trained = train(kind)
    tokenizer = ours(trained)
    special = {*tokenizer.encode("", 8).ids, tokenizer.pad_id, trained.token_to_id("<mask>")}
    for text in (
        "x<s>x</s> <pad> <mask>",
        "＜s＞ ＜/s＞ ＜pad＞",
        "<s></s>",
        "x[CLS]x[SEP] [PAD][MASK] x",
        "<s>",
        "[PAD]",
    ):
        encoding = tokenizer.encode(text, 1000)
        assert not special & set(encoding.ids[1:-1])
        check_places(encoding, text, trained)


def test_a_literal_special_token_is_spelled_in_its_place() -> None:
    tokenizer = ours(train("Unigram, NFKC", [*LINES, "< s > / p a d"]))
    text = "a <s> film"
    encoding = tokenizer.encode(text, 64)
    assert {(2, 3), (3, 4), (4, 5)} <= set(encoding.places)
    assert encoding.ids[-2] == tokenizer.encode("film", 64).ids[-2]


def test_the_bytes_of_a_character_share_its_place() -> None:
    """From a vocabulary of bytes alone: ä has 2 of them, the emoji 4 each, its joiner 3."""
    tokenizer = ours(byte_pairs(prefix=True, trim=True, lines=[]))
    encoding = tokenizer.encode("ä b\t👩\u200d👧", 64)
    assert inner(encoding) == [
        (0, 1),  # the space in front, which is not in the text
        *[(0, 1)] * 2,
        (1, 2),
        (2, 3),
        (3, 4),
        *[(4, 5)] * 4,
        *[(5, 6)] * 3,
        *[(6, 7)] * 4,
    ]
    assert inner(tokenizer.encode("ä b", 4)) == [(0, 1), (0, 1)]  # a cut within a character


def test_composed_bytes_have_the_place_of_the_letter_and_its_mark() -> None:
    made = byte_pairs(prefix=False, trim=False, lines=[])
    made.normalizer = tokenizers.normalizers.NFC()
    assert inner(ours(made).encode("e\u0301x", 64)) == [(0, 2), (0, 2), (2, 3)]


def test_the_letters_of_a_ligature_share_its_place() -> None:
    made = train("Unigram as XLM-RoBERTa's")
    made.model = models.Unigram(
        [(piece, -float(i)) for i, piece in enumerate([*NAMES, "▁x", "▁f", "f", "i"])], 3, False
    )
    assert inner(ours(made).encode("x ﬃx", 64)) == [(0, 1), (2, 3), (2, 3), (2, 3), (3, 4)]


def test_special_tokens_are_those_that_the_file_says() -> None:
    names = ["word", "<end>", "<fill>", "[CLS]", "<s>", "<begin>", "<odd>"]
    made = tokenizers.Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="<odd>")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(["<end>", "<fill>", "<begin>", "<odd>", "[PAD]"])
    made.enable_padding(pad_token="<fill>", pad_id=2, length=50)
    made.enable_truncation(5)
    made.post_processor = processors.TemplateProcessing(
        single="<begin> $A <end>", special_tokens=[("<begin>", 5), ("<end>", 1)]
    )
    tokenizer = ours(made)
    assert tokenizer.pad_id == 2
    assert tokenizer.encode("word other word word word [CLS] <s>", 50).ids == (
        *(5, 0, 6, 0, 0, 0, 3, 4, 1),
    )
    made.no_padding()
    assert ours(made).pad_id == 7
    # It is a word of the vocabulary, and read as its characters.
    assert ours(made).encode("<end> word", 50).ids == (5, *[6] * 5, 0, 1)


@pytest.mark.every_value
@pytest.mark.parametrize("unit", ["a", "a b ", "\u0301", "\x01", " ", "😀", "<s>", "ﬃ"])
def test_a_megabyte_is_cut_like_any_text(pair: Pair, unit: str) -> None:
    text = unit * (1_000_000 // len(unit.encode()))
    encoding = pair.ours.encode(text, 128)
    assert len(encoding.ids) <= 128
    assert all(0 <= start < end <= len(text) for start, end in inner(encoding))


def test_no_token_is_drawn_at_random() -> None:
    made = train("BPE as RoBERTa's")
    expected = ours(made).encode_batch(TEXTS, 1000)
    made.model.dropout = 0.9
    assert json.loads(made.to_str())["model"]["dropout"] == pytest.approx(0.9)
    assert ours(made).encode_batch(TEXTS, 1000) == expected


def unlike(change: str) -> tokenizers.Tokenizer:
    made = train("Unigram, NFKC" if change == "no unknown" else "BPE as RoBERTa's")
    match change:
        case "nothing added":
            made.post_processor = processors.ByteLevel()
        case "only an end":
            made.post_processor = processors.TemplateProcessing(
                single="$A </s>", special_tokens=[("</s>", 2)]
            )
        case "two at the end":
            made.post_processor = processors.TemplateProcessing(
                single="<s> $A </s> </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
            )
        case "characters":
            made.pre_tokenizer = pre_tokenizers.Metaspace()
        case "few bytes":
            made.model = models.BPE({"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3}, [])
        case "no padding":
            made = byte_pairs(prefix=False, trim=True, lines=[])
            return tokenizers.Tokenizer.from_str(made.to_str().replace("<pad>", "<none>"))
        case "no unknown":
            file = json.loads(made.to_str())
            file["model"]["unk_id"] = None
            return tokenizers.Tokenizer.from_str(json.dumps(file))
    return made


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("nothing added", "expected a tokenizer that adds one token at each end, got 0 in all"),
        ("only an end", "expected a tokenizer that adds one token at each end, got 1 in all"),
        ("two at the end", "expected a tokenizer that adds one token at each end, got 3 in all"),
        ("characters", "of kind WordPiece, Unigram or byte-level BPE at tokenizer.json, got BPE"),
        ("few bytes", "expected a token for unknown words in tokenizer.json, got none"),
        ("no unknown", "expected a token for unknown words in tokenizer.json, got none"),
        ("no padding", r"expected a tokenizer with the token \[PAD\], got one without it"),
    ],
)
def test_what_cannot_be_read_rightly_is_refused(change: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ours(unlike(change))


def test_a_model_with_too_few_embeddings_is_refused(pair: Pair) -> None:
    pair.ours.check_ids(pair.ours.vocab_size)
    largest = pair.ours.vocab_size - 1
    with pytest.raises(InputError, match=f"expected token ids below {largest}, got {largest}"):
        pair.ours.check_ids(largest)
