"""Hiding parts of a text before a model reads it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data.pretrained import PretrainedTokenizer
from attnpriv.data.tokenisation import HashTokenizer
from attnpriv.models.pretrained import encoder_folder
from attnpriv.sensitive import Part, PresidioDetector, hidden_parts, read_redacted, redact
from attnpriv.sensitive.stand_ins import stand_ins
from attnpriv.spans import Span

VALUES = ["Ann", "Dr. Karen Fletcher-Smith", "王小明", "jane.doe@example.com", "🧑‍⚕️", "7", "##ing"]
TEMPLATES = [
    "Call {} or {} today.",
    "{}{}",
    "x{}y, {}",
    "{} schrieb: größer als {}?",
    "a\u0301{} {}",
]


class Listed:
    """Finds given words, and the type that each is listed under."""

    name, cannot_see = "listed", ()

    def __init__(self, words: dict[str, str]) -> None:
        self._words = words
        self.entity_types = tuple(sorted(set(words.values())))

    def detect(self, text):
        return self.detect_all([text])[0]

    def detect_all(self, texts):
        return [
            tuple(
                Span(start, start + len(word), kind)
                for word, kind in self._words.items()
                for start in range(len(text))
                if text.startswith(word, start)
            )
            for text in texts
        ]


@pytest.fixture(scope="module", params=["hash", "minilm"])
def tokenizer(request):
    return HashTokenizer() if request.param == "hash" else minilm()


def minilm() -> PretrainedTokenizer:
    return PretrainedTokenizer.from_file(encoder_folder("minilm") / "tokenizer.json")


def filled(template: str, values) -> tuple[str, list[Span]]:
    text, spans = "", []
    stretches = template.split("{}")
    for number, (stretch, value) in enumerate(zip(stretches, [*values, ""], strict=True)):
        text += stretch
        if number < len(values):
            spans.append(Span(len(text), len(text) + len(value), f"KIND_{number}"))
        text += value
    return text, spans


@pytest.mark.parametrize("template", TEMPLATES)
def test_hidden_values_change_nothing_that_the_model_reads(tokenizer, template) -> None:
    chance = random.Random(7)
    seen = set()
    for _ in range(50):
        text, spans = filled(template, chance.choices(VALUES, k=2))
        redacted = redact(text, hidden_parts(spans))
        seen.add((redacted.text, redacted.encode(tokenizer, 16)))

    assert len(seen) == 1


def test_one_mask_token_stands_for_each_part_and_shows_its_placeholder(tokenizer) -> None:
    text, spans = filled("Call {} or {} today.", ["Karen Fletcher", "+44 7911 123456"])

    redacted = redact(text, hidden_parts(spans))
    encoding = redacted.encode(tokenizer, 64)

    assert redacted.text == "Call [KIND_0] or [KIND_1] today."
    assert encoding.ids.count(tokenizer.mask_id) == 2
    assert encoding.words(redacted.text)[1:-1] == [
        "Call",
        "[KIND_0]",
        "or",
        "[KIND_1]",
        "today",
        ".",
    ]
    assert [redacted.types_at(place) for place in encoding.places] == [
        (),
        (),
        ("KIND_0",),
        (),
        ("KIND_1",),
        (),
        (),
        (),
    ]


# Public values in place of what is hidden


PUBLIC = {"KIND_0": "Karen Fletcher of London"}


@pytest.mark.parametrize("template", TEMPLATES)
def test_nor_does_what_is_read_with_public_values_follow_the_hidden_ones(
    tokenizer, template
) -> None:
    chance = random.Random(8)
    seen = set()
    for _ in range(50):
        text, spans = filled(template, chance.choices(VALUES, k=2))
        seen.add(redact(text, hidden_parts(spans)).encode(tokenizer, 16, PUBLIC))

    assert len(seen) == 1


def test_a_public_value_is_read_as_in_a_text_and_has_the_place_of_its_placeholder(
    tokenizer,
) -> None:
    text, spans = filled("Call {} or {} today.", ["Ann", "+44 7911 123456"])
    redacted = redact(text, hidden_parts(spans))

    encoding = redacted.encode(tokenizer, 64, PUBLIC)

    of_value = tokenizer.encode(PUBLIC["KIND_0"], 64).ids[1:-1]
    start = 2  # after [CLS] and "Call"
    assert encoding.ids[start : start + len(of_value)] == of_value
    placeholder = redacted.parts[0]
    assert set(encoding.places[start : start + len(of_value)]) == {
        (placeholder.start, placeholder.end)
    }
    assert encoding.ids.count(tokenizer.mask_id) == 1  # no value stands for the other type


@pytest.mark.parametrize("room", [4, 5, 8, 9, 10, 11, 64])
def test_tokens_of_a_public_value_belong_to_its_placeholder(tokenizer, room) -> None:
    texts = ["Ann and Bob met: AnnBob. \u0e33\u0e33 end", "Ann", "none here", "x " * 20 + "Ann"]
    detector = Listed({"Ann": "PERSON", "Bob": "CREDIT_CARD"})

    for reading in read_redacted(detector, texts, tokenizer, room):
        positions = reading.substituted_positions()
        places = reading.substituted.places

        assert positions[0] == 0
        assert positions[-1] == reading.encoding.size - 1
        for position, place in zip(positions, places, strict=True):
            assert position is not None
            assert reading.encoding.places[position] == place
        assert len(reading.substituted.ids) <= room
        visible = [
            number
            for number, place in enumerate(places)
            if place is not None and not reading.redacted.types_at(place)
        ]
        for number in visible:  # what is shown is read as it stands
            assert reading.substituted.ids[number] == reading.encoding.ids[positions[number]]
        assert reading.substituted_truncated >= reading.truncated


def test_every_stand_in_is_of_a_type_that_the_detector_finds_and_is_readable(tokenizer) -> None:
    found = set(PresidioDetector().entity_types)

    assert set(stand_ins()) <= found
    assert {"PERSON", "LOCATION", "ORGANIZATION", "PHONE_NUMBER", "EMAIL_ADDRESS"} <= set(
        stand_ins()
    )
    for value in stand_ins().values():
        assert tokenizer.mask_id not in tokenizer.encode(value, 64).ids
        assert tokenizer.encode(value, 64).size > 2


def test_nothing_to_hide_leaves_the_tokens_as_they_are(tokenizer) -> None:
    for text in ("Where is my parcel?", "", "größer 王小明 🧑‍⚕️", "word " * 100):
        assert redact(text, ()).encode(tokenizer, 16) == tokenizer.encode(text, 16)


def test_overlapping_spans_are_hidden_as_one() -> None:
    spans = [Span(8, 12, "B"), Span(2, 5, "A"), Span(4, 7, "B"), Span(4, 5, "A"), Span(7, 8, "C")]

    parts = hidden_parts([*spans, Span(9, 9, "EMPTY")])

    assert parts == (Part(2, 7, ("A", "B")), Part(7, 8, ("C",)), Part(8, 12, ("B",)))
    assert redact("0123456789abcd", parts).text == "01[A][B][C][B]cd"


def test_each_token_of_the_whole_text_has_its_place_in_the_redacted_one(tokenizer) -> None:
    text = "Dear Karen Fletcher, pay +44 7911 123456 now"
    detector = Listed({"Karen Fletcher": "PERSON", "+44 7911 123456": "PHONE"})

    (reading,) = read_redacted(detector, [text], tokenizer, 64)
    full = tokenizer.encode(text, 64)
    words = reading.encoding.words(reading.redacted.text)
    shown = [words[position] for position in reading.positions(full)]

    for word, where in zip(full.words(text), shown, strict=True):
        hidden = {"[PERSON]": "Karen Fletcher", "[PHONE]": "+44 7911 123456"}.get(where, where)
        assert word in hidden
    assert list(dict.fromkeys(shown)) == words


def test_what_the_redacted_text_has_no_room_for_has_no_place(tokenizer) -> None:
    text = "one Ann two Ann three four five six"
    (reading,) = read_redacted(Listed({"Ann": "PERSON"}), [text], tokenizer, 6)

    positions = reading.positions(tokenizer.encode(text, 64))

    assert reading.truncated
    assert positions == [0, 1, 2, 3, 4, None, None, None, None, 5]


def test_tokens_that_share_a_place_keep_their_own_positions() -> None:
    tokenizer = minilm()
    text = "Ann likes ﬁancé ½ ﷺ"
    (reading,) = read_redacted(Listed({"Ann": "PERSON"}), [text], tokenizer, 64)

    assert reading.positions(tokenizer.encode(text, 64)) == list(range(reading.encoding.size))


def test_long_hidden_values_do_not_use_up_what_is_searched(tokenizer) -> None:
    secret = "Z" * 200
    detector = Listed({secret: "KEY", "Ann": "KEY"})
    after = " the parcel was lost and nobody answers my mails " * 3

    long, short = read_redacted(
        detector, [f"{each} " * 9 + after for each in (secret, "Ann")], tokenizer, 24
    )

    assert long.encoding.ids == short.encoding.ids
    assert long.truncated
    assert long.redacted.text.startswith("[KEY] " * 9 + " the parcel was lost")


def test_the_length_of_a_hidden_value_cuts_no_word_that_is_read(tokenizer) -> None:
    words = " cancellation" * 100
    secrets = ["Z" * length for length in range(1, 120, 3)]

    readings = [
        read_redacted(Listed({secret: "KEY"}), [secret + words], tokenizer, 16)[0]
        for secret in secrets
    ]

    assert len({(reading.encoding, reading.truncated) for reading in readings}) == 1


def test_a_value_at_the_edge_of_what_is_searched_is_hidden_whole() -> None:
    tokenizer = HashTokenizer()
    window = 8 * 8 + 256
    text = " " * (window - 256 - 2) + "ABCDEF and more"

    (reading,) = read_redacted(Listed({"ABCDEF": "KEY"}), [text], tokenizer, 8)

    assert reading.encoding.words(reading.redacted.text)[1:-1] == ["[KEY]", "and", "more"]


@st.composite
def cuts(draw: st.DrawFn) -> list[Span]:
    """Spans that may overlap, and some that are empty."""
    ends = draw(st.lists(st.tuples(st.integers(0, 31), st.integers(0, 31)), max_size=5))
    return [Span(min(pair), max(pair), "X") for pair in ends]


@given(spans=cuts())
def test_no_character_of_a_span_is_left_and_all_others_are(spans) -> None:
    text = "".join(chr(ord("a") + n) if n < 26 else chr(ord("0") + n - 26) for n in range(31))

    parts = hidden_parts(spans)
    redacted = redact(text, parts)

    hidden = {text[i] for span in spans for i in range(span.start, span.end)}
    assert redacted.text.replace("[X]", "") == "".join(c for c in text if c not in hidden)
    assert [redacted.text[part.start : part.end] for part in redacted.parts] == ["[X]"] * len(parts)
