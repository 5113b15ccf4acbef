from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data import HashTokenizer, Span, make_tickets, sensitive_tokens
from attnpriv.spans import read_spans

NUMBERS = st.integers(min_value=0, max_value=12)
RANGES = st.tuples(NUMBERS, NUMBERS).map(lambda pair: (min(pair), max(pair)))
SPANS = RANGES.filter(lambda pair: pair[0] < pair[1]).map(lambda pair: Span(pair[0], pair[1], "X"))


@given(st.lists(RANGES), st.lists(SPANS))
def test_a_token_is_sensitive_iff_it_shares_a_character_with_a_span(
    offsets: list[tuple[int, int]], spans: list[Span]
) -> None:
    covered = {position for span in spans for position in range(span.start, span.end)}
    expected = tuple(bool(covered & set(range(start, end))) for start, end in offsets)
    assert sensitive_tokens(offsets, spans) == expected


def test_special_tokens_and_touching_neighbours_are_not_sensitive() -> None:
    places = [None, (0, 3), (3, 5), (5, 6), (4, 4), None]
    marked = sensitive_tokens(places, [Span(3, 5, "PERSON")])
    assert marked == (False, False, True, False, False, False)


def test_nothing_is_sensitive_without_spans() -> None:
    assert sensitive_tokens([None, (0, 5)], []) == (False, False)
    assert sensitive_tokens([], [Span(0, 5, "PERSON")]) == ()


def test_the_sensitive_tokens_of_a_ticket_spell_its_personal_data() -> None:
    dataset = make_tickets(rows=200)
    assert dataset.spans is not None
    encodings = HashTokenizer().encode_batch(dataset.texts, max_length=4096)
    for text, spans, encoding in zip(dataset.texts, dataset.spans, encodings, strict=True):
        marked = sensitive_tokens(encoding.places, spans)
        pairs = zip(encoding.places, marked, strict=True)
        found = "".join(text[slice(*place)] for place, yes in pairs if place and yes)
        expected = "".join(text[span.start : span.end] for span in spans)
        assert found == "".join(expected.split())


def test_a_span_that_a_file_gives_twice_counts_once() -> None:
    one = {"start": 0, "end": 2, "entity_type": "PERSON"}
    inner = {"start": 1, "end": 2, "entity_type": "PERSON"}
    assert read_spans([one, inner, one], 5) == (Span(0, 2, "PERSON"), Span(1, 2, "PERSON"))
