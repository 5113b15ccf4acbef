from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data.records import Span
from attnpriv_server.domain import Token
from attnpriv_server.explain import redact

TEXT = "call 079 11 now"
#       0123456789...


def tokens(*offsets: tuple[int, int]) -> list[Token]:
    return [Token(TEXT[s:e], (), (0.1, 0.2), 1.0, (s, e)) for s, e in offsets]


def test_a_run_of_tokens_becomes_one_placeholder_with_summed_scores() -> None:
    found = redact(tokens((0, 4), (5, 8), (9, 11), (12, 15)), [Span(5, 11, "PHONE_NUMBER")])

    assert [token.text for token in found] == ["call", "[PHONE_NUMBER]", "now"]
    assert found[1].entity_types == ("PHONE_NUMBER",)
    assert found[1].attention == pytest.approx((0.2, 0.4))
    assert found[1].integrated_gradients == pytest.approx(2.0)
    assert all(token.offsets is None for token in found)


def test_a_partly_covered_token_is_hidden_whole() -> None:
    found = redact(tokens((0, 4), (5, 11), (12, 15)), [Span(7, 9, "X")])

    assert [token.text for token in found] == ["call", "[X]", "now"]


def test_neighbouring_spans_stay_apart_unless_one_token_carries_both() -> None:
    spans = [Span(5, 8, "A"), Span(8, 11, "B")]

    apart = redact(tokens((5, 8), (8, 11)), spans)
    joined = redact(tokens((5, 7), (7, 9), (9, 11)), spans)

    assert [token.text for token in apart] == ["[A]", "[B]"]
    assert [token.text for token in joined] == ["[A][B]"]
    assert joined[0].integrated_gradients == pytest.approx(3.0)


def test_nothing_sensitive_changes_only_the_offsets() -> None:
    found = redact(tokens((0, 4), (5, 8)), [])

    assert [(token.text, token.entity_types) for token in found] == [("call", ()), ("079", ())]
    assert all(token.offsets is None for token in found)


@st.composite
def cuts(draw: st.DrawFn, most: int) -> list[tuple[int, int]]:
    """Sorted ranges without overlaps."""
    points = sorted(draw(st.sets(st.integers(0, 30), max_size=2 * most)))
    return list(zip(points[::2], points[1::2], strict=False))


@given(offsets=cuts(10), ranges=cuts(4))
def test_redaction_hides_every_covered_character_and_keeps_the_totals(offsets, ranges) -> None:
    text = "".join(chr(ord("a") + n) if n < 26 else chr(ord("0") + n - 26) for n in range(31))
    scored = [Token(text[s:e], (), (1.0,), 1.0, (s, e)) for s, e in offsets]

    found = redact(scored, [Span(s, e, "X") for s, e in ranges])

    shown = "".join(token.text for token in found if not token.entity_types)
    hidden = {text[i] for s, e in ranges for i in range(s, e)}
    assert not hidden & set(shown)
    assert sum(token.integrated_gradients for token in found) == pytest.approx(len(offsets))
    assert sum(token.attention[0] for token in found) == pytest.approx(len(offsets))
