"""Personal data that is spelt so that a search of the text as it is would miss it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data.normalisation import NormalisingTokenizer
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.sensitive import PresidioDetector, Rules, read_redacted
from attnpriv.sensitive.spellings import in_one_spelling, in_original, with_marks
from attnpriv.spans import Span

NUMBER = "07911123456"
WIDE = "".join(chr(ord(digit) + 0xFEE0) for digit in NUMBER)


@pytest.fixture(scope="module")
def detector() -> PresidioDetector:
    return PresidioDetector(Rules(language_model="none"))


@pytest.mark.parametrize(
    "value",
    [
        "\u200b".join(NUMBER),
        "\u2060\ufe0f".join(NUMBER),
        WIDE,
        "\u0301".join(NUMBER),
        NUMBER + "\u0301\u0316",
        NUMBER + "\u200b\u0301\u200d",
        "jane\u200b.doe@exam\u00adple.com",
        "jane.doe＠example.com",
    ],
)
def test_nothing_of_a_value_is_left(detector: PresidioDetector, value: str) -> None:
    text = f"call {value} nоw"  # the о is Cyrillic, and stays
    (span,) = detector.detect(text)

    assert text[: span.start] + text[span.end :] == "call  nоw"
    for tokenizer in (HashTokenizer(), NormalisingTokenizer(HashTokenizer())):
        (reading,) = read_redacted(detector, [text], tokenizer, 32)
        plain = f"call {NUMBER} nоw" if "@" not in value and "＠" not in value else None
        assert reading.redacted.text == f"call [{span.entity_type}] nоw"
        if plain:
            (same,) = read_redacted(detector, [plain], tokenizer, 32)
            assert reading.encoding.ids == same.encoding.ids


def test_what_follows_a_value_stays(detector: PresidioDetector) -> None:
    text = f"{NUMBER} e\u0301t {NUMBER}é"

    assert next(text[: s.start] + text[s.end :] for s in detector.detect(text)) == text[11:]


@given(
    st.text(alphabet=st.one_of(st.sampled_from("a1 \u0301\u200bé①ﬁ"), st.characters(codec="utf-8")))
)
def test_every_part_of_one_spelling_has_a_place_in_the_text(text: str) -> None:
    other = in_one_spelling(text)

    if other is None:
        return
    assert other.text != text
    assert len(other.text) == len(other.origins)
    for i in range(len(other.text)):
        span = with_marks(in_original(Span(i, i + 1, "X"), other), text)
        assert 0 <= span.start < span.end <= len(text)


def test_a_text_in_one_spelling_is_searched_once() -> None:
    assert in_one_spelling("plain") is None
    assert in_one_spelling("café, “quoted” £5") is None
