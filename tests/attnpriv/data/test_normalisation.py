"""Texts in one spelling: what becomes of characters, and where tokens stand in the original."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data.lookalikes import LOOKALIKES
from attnpriv.data.normalisation import UNSEEN, NormalisingTokenizer, _fold, normalise
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.errors import InputError

ODD = "аеіосԁΙ\u200b\u200d\ufeff\u00ad\u0301\u0308ﬁ㎏ａ①é각\u1100\u1161\u11a8ſaeio Z1. "
TEXTS = st.text(alphabet=st.one_of(st.sampled_from(ODD), st.characters(codec="utf-8")), max_size=24)


def composed(text: str) -> str:
    """A second way: the whole text at once."""
    return unicodedata.normalize("NFKC", UNSEEN.sub("", text))


@pytest.mark.parametrize(
    ("text", "normal", "origins"),
    [
        ("plain ASCII", "plain ASCII", None),
        ("c\u200blick", "click", [0, 2, 3, 4, 5]),
        ("\ufeffok\u200b", "ok", [1, 2]),
        ("сliсk", "click", None),  # both с are Cyrillic
        ("my ｃａｒｄ", "my card", None),
        ("ﬁne", "fine", [0, 0, 1, 2]),
        ("cafe\u0301", "café", [0, 1, 2, 3]),
        ("привет", "привет", None),  # no ASCII letter in the word, nor most of the text
        ("сора", "сора", None),
        ("the сора is here", "the copa is here", None),
        ("Ιt is Ιn", "It is In", None),
        ("", "", None),
        ("\u200b\u200d", "", None),
    ],
)
def test_texts_and_where_their_characters_come_from(
    text: str, normal: str, origins: list[int] | None
) -> None:
    found = normalise(text)
    assert found.text == normal
    starts = [start for start, _ in found.origins]
    assert starts == (list(range(len(normal))) if origins is None else origins)


@given(TEXTS)
def test_it_is_nfkc_of_what_is_seen_with_lookalikes_folded(text: str) -> None:
    found = normalise(text)
    assert found.text == _fold(composed(text))
    assert len(found.text) == len(found.origins)


@given(TEXTS)
def test_each_character_comes_from_where_it_is_said_to(text: str) -> None:
    found, whole = normalise(text), composed(text)
    for i, (start, end) in enumerate(found.origins):
        assert 0 <= start < end <= len(text)
        assert whole[i] in composed(text[start:end])
    assert list(found.origins) == sorted(found.origins)


@given(TEXTS)
def test_places_of_tokens_lie_in_the_original_in_order(text: str) -> None:
    tokenizer = NormalisingTokenizer(HashTokenizer(512))
    encoding = tokenizer.encode(text, 64)
    inner = tokenizer.inner.encode(normalise(text).text, 64)
    assert encoding.ids == inner.ids
    places = [place for place in encoding.places if place is not None]
    assert places == sorted(places)
    normal = [place for place in inner.places if place is not None]
    for (start, end), own in zip(places, normal, strict=True):
        assert 0 <= start < end <= len(text)
        assert composed(text)[slice(*own)] in composed(text[start:end])


def test_ascii_is_read_as_before() -> None:
    plain = HashTokenizer(512)
    for text in ("Call 555-0199 now!", "", "a b  c"):
        assert NormalisingTokenizer(plain).encode(text, 9) == plain.encode(text, 9)
    assert NormalisingTokenizer(plain).encode_batch(["a", "b"], 9) == plain.encode_batch(
        ["a", "b"], 9
    )


def test_every_lookalike_in_a_word_is_folded() -> None:
    for letter, others in LOOKALIKES.items():
        assert len({*others}) == len(others)
        for other in others:
            assert normalise(f"x{other}x").text == f"x{letter}x"


def test_invalid_unicode_is_one_error() -> None:
    with pytest.raises(InputError, match="not valid Unicode at character 2"):
        NormalisingTokenizer(HashTokenizer(512)).encode("ab\ud800", 9)
