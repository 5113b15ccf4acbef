from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attnpriv.data.records import Span
from attnpriv.sensitive import (
    LONG_NUMBER,
    Detector,
    PresidioDetector,
    Rules,
    detector_quality,
    digits,
    placeholder,
    resolve_overlaps,
)

GOLD = Path(__file__).parents[4] / "shared" / "data" / "pii_spans.json"
KINDS = {
    "EMAIL_ADDRESS": ("mail", "anna.smith@example.com"),
    "CREDIT_CARD": ("card", "4012 8888 8888 1881"),
    "PHONE_NUMBER": ("ring", "+44 20 7946 0958"),
    "IBAN_CODE": ("iban", "DE89 3704 0044 0532 0130 00"),
    "IP_ADDRESS": ("from", "192.168.17.4"),
    "URL": ("see", "https://www.example.org/a?b=1"),
    "US_SSN": ("ssn", "536-90-4399"),
    "MAC_ADDRESS": ("mac", "00:1A:2B:3C:4D:5E"),
}
TEXTS = [f"{before} {value} please" for before, value in KINDS.values()]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return PresidioDetector(Rules(language_model="none"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_whole(detector: Detector, kind: str) -> None:
    before, value = KINDS[kind]
    start = len(before) + 1
    assert detector.detect(f"{before} {value} please") == (Span(start, start + len(value), kind),)


@pytest.mark.parametrize(
    "number",
    [
        "2221 0000 0000 0009",
        "2720-9999-9999-9996",
        "2223\u00a00000\u00a04840\u00a00011",
        "2223\u20090000\u20094840\u20090011",
        "2223 / 0000 / 4840 / 0011",
        "6304 0000 0000 0000 000",
        "6304000000000000000",
    ],
)
def test_cards_of_every_series_length_and_grouping_are_cards(
    detector: Detector, number: str
) -> None:
    assert detector.detect(f"my {number} please") == (Span(3, 3 + len(number), "CREDIT_CARD"),)


BETWEEN = [
    *("", " ", "  ", ".", "-", "/", ") ", "\u00a0", "\u2009", "\u202f", "\u2011", "\u2013"),
    *("\u2212", "\u200b", "\u00ad", "\t", "\uff0d", "\u202c", "\u2066"),
]
BETWEEN_GROUPS = [*BETWEEN, " - ", "\n", ",", ":", "_", "*"]


@given(
    st.one_of(
        st.lists(st.sampled_from(BETWEEN), min_size=6, max_size=40),
        st.lists(st.sampled_from([*BETWEEN, " - "]), min_size=8, max_size=40),
        st.lists(st.sampled_from(BETWEEN_GROUPS), min_size=12, max_size=40),
    ),
    st.data(),
    st.sampled_from(["", "x", " on ", "2024-01-01 ", "No", "#", "e="]),
    st.sampled_from(["", "x", " ok", "pm", " 2024-01-01", "_", "."]),
)
def test_every_digit_of_a_long_run_is_covered_whatever_stands_between_and_beside(
    detector: Detector, between: list[str], data: st.DataObject, before: str, after: str
) -> None:
    digits = data.draw(st.text("0123456789\u0661\u096b", min_size=len(between) + 1))
    run = digits[0] + "".join(map(str.__add__, between, digits[1:]))
    covered = _covered(detector.detect(before + run + after))
    assert covered >= set(range(len(before), len(before) + len(run)))


def test_the_rest_of_a_number_beside_a_date_is_hidden_too(detector: Detector) -> None:
    text = "On 2024-01-01 555-1234 called"
    assert detector.detect(text) == (Span(3, 13, "DATE_TIME"), Span(13, 22, "PHONE_NUMBER"))


def test_a_longer_number_than_any_phone_has_is_called_a_long_number(detector: Detector) -> None:
    assert detector.detect("ref 1111111111111111 end") == (Span(4, 20, LONG_NUMBER),)
    assert detector.detect("ref A7777777B end") == (Span(5, 12, "PHONE_NUMBER"),)


@pytest.mark.parametrize(
    "text",
    [
        "in 1999, 2004 and 2010 it rained",
        "the war of 1990 - 2000",
        "from 19.99 to 24.50, or 1,250.00",
        "items 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12",
        "meet at 10:30, 11:30 or 12:45",
    ],
)
def test_years_prices_times_and_lists_are_left_alone(detector: Detector, text: str) -> None:
    assert detector.detect(text) == ()


def test_a_time_of_day_belongs_to_its_date(detector: Detector) -> None:
    assert detector.detect("at 2024-01-31 12:30:45 sharp") == (Span(3, 22, "DATE_TIME"),)


@pytest.mark.parametrize("piece", ["1 ", "1,", "123456x ", "1,2,3,4,5,6,7,8,9,0,1,2x", "+(", "7"])
def test_hostile_numbers_take_linear_time(piece: str) -> None:
    # A pattern that backtracks would need minutes here.
    text = piece * (100_000 // len(piece))
    for pattern in (*digits.NUMBERS, digits.LONG_NUMBERS):
        assert all(match[0] for match in pattern.finditer(text))


def test_a_number_of_no_known_phone_plan_is_still_hidden(detector: Detector) -> None:
    assert detector.detect("ask 416 60 039 now") == (Span(4, 14, "PHONE_NUMBER"),)
    assert detector.detect("born 12, aged 345678") == ()


def test_spans_are_sorted_and_disjoint(detector: Detector) -> None:
    text = " and ".join(TEXTS)
    spans = detector.detect(text)
    assert len(spans) >= len(KINDS)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@pytest.mark.parametrize(
    "text", ["", " ", "\u0000", "plain words only", "Maria Lopez lives in Rome"]
)
def test_nothing_to_find(detector: Detector, text: str) -> None:
    assert detector.detect(text) == ()


def test_what_it_cannot_see_is_said_and_never_claimed(detector: Detector) -> None:
    assert {"PERSON", "LOCATION", "NRP", "ORGANIZATION", "AGE"} <= set(detector.cannot_see)
    assert not {"AGE", "YEAR", "LOCATION"} & set(detector.entity_types)
    assert "EMAIL_ADDRESS" in detector.entity_types


def test_overlaps_go_to_the_higher_score_then_the_longer() -> None:
    mail, host, longer, number = (
        Span(0, 15, "EMAIL_ADDRESS"),
        Span(5, 15, "URL"),
        Span(20, 40, "IBAN_CODE"),
        Span(25, 35, "PHONE_NUMBER"),
    )
    scored = [(0.5, host), (0.4, number), (1.0, mail), (0.4, longer)]
    assert resolve_overlaps(scored) == (mail, longer)
    assert resolve_overlaps(reversed(scored)) == (mail, longer)


SCORED = st.lists(
    st.tuples(
        st.sampled_from([0.2, 0.3, 1.0]),
        st.builds(
            lambda start, length, kind: Span(start, start + length, kind),
            st.integers(0, 30),
            st.integers(1, 12),
            st.sampled_from("ABC"),
        ),
    ),
    max_size=8,
)


@given(SCORED)
def test_resolving_overlaps_loses_and_adds_no_character(scored: list[tuple[float, Span]]) -> None:
    spans = resolve_overlaps(scored)
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(span.start < span.end for span in spans)
    assert _covered(spans) == _covered(span for _, span in scored)
    assert spans == resolve_overlaps(reversed(scored))


@given(SCORED)
def test_the_best_span_stays_whole_and_only_fragments_change_their_type(
    scored: list[tuple[float, Span]],
) -> None:
    spans = resolve_overlaps(scored)
    for score, span in scored:
        better = [other for other_score, other in scored if other_score >= score and other != span]
        inside = [s for s in spans if s.start <= span.start and span.end <= s.end]
        if not any(o.start < span.end and span.start < o.end for o in better):
            assert [s.entity_type for s in inside] == [span.entity_type]
    for found in spans:
        of_type = _covered(s for _, s in scored if s.entity_type == found.entity_type)
        strange = sorted(_covered([found]) - of_type)
        runs = "".join("x" if i in strange else " " for i in range(found.start, found.end)).split()
        assert all(len(run) <= 3 for run in runs)


def test_what_a_winner_leaves_keeps_its_type_or_joins_it() -> None:
    date, number = Span(3, 13, "DATE_TIME"), Span(3, 22, "PHONE_NUMBER")
    rest = Span(13, 22, "PHONE_NUMBER")
    assert resolve_overlaps([(0.6, date), (0.3, number)]) == (date, rest)
    assert resolve_overlaps([(0.6, date), (0.3, Span(2, 13, "PHONE_NUMBER"))]) == (
        Span(2, 13, "DATE_TIME"),
    )
    pieces = [(0.4, Span(0, 8, "PHONE_NUMBER")), (0.3, Span(0, 12, "PHONE_NUMBER"))]
    assert resolve_overlaps(pieces) == (Span(0, 12, "PHONE_NUMBER"),)


def _covered(spans: Iterable[Span]) -> set[int]:
    return {position for span in spans for position in range(span.start, span.end)}


def test_threads_agree_with_one_thread(detector: Detector) -> None:
    texts = TEXTS * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detector.detect, texts)) == [detector.detect(t) for t in texts]


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the detector opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    detector = PresidioDetector(Rules(language_model="none"))
    assert detector.detect("to someone@mail.example.co.uk")[0].entity_type == "EMAIL_ADDRESS"


def test_placeholder_never_carries_odd_characters() -> None:
    assert placeholder("<script>") == "[SCRIPT]"
    assert placeholder("--") == "[PERSONAL_DATA]"


class _Fixed:
    name = "fixed"
    entity_types = ("A", "B")
    cannot_see = ()

    def detect_all(self, texts: Sequence[str]) -> list[tuple[Span, ...]]:
        return [self.detect(text) for text in texts]

    def detect(self, text: str) -> tuple[Span, ...]:
        return {"x": (Span(0, 4, "A"), Span(6, 9, "B")), "y": (Span(0, 2, "A"),)}[text]


def test_quality_counts_known_by_hand() -> None:
    gold = [(Span(2, 5, "A"), Span(6, 8, "C")), ()]
    by_type = {q.entity_type: q for q in detector_quality(_Fixed(), ["x", "y"], gold)}
    assert (by_type["A"].recall, by_type["A"].precision) == (1.0, 0.5)
    assert (by_type["B"].recall, by_type["B"].precision) == (None, 0.0)
    assert (by_type["C"].recall, by_type["C"].precision) == (0.0, None)
    assert by_type["C"].found_as_any == 1


@pytest.mark.skipif(not GOLD.exists(), reason="the shared gold spans are not on this machine")
def test_quality_on_real_gold_spans(detector: Detector) -> None:
    rows = json.loads(GOLD.read_text())
    gold = [
        [Span(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]]
        for row in rows
    ]
    quality = {
        q.entity_type: q for q in detector_quality(detector, [r["full_text"] for r in rows], gold)
    }
    assert quality["CREDIT_CARD"].found_as_any == quality["CREDIT_CARD"].gold == 136
    for kind in ("EMAIL_ADDRESS", "IP_ADDRESS", "US_SSN", "IBAN_CODE"):
        assert (quality[kind].recall or 0) >= 0.95
    assert (quality["PHONE_NUMBER"].recall or 0) >= 0.9
    assert quality["PERSON"].gold == 857
