from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from attnpriv.data.records import Span
from attnpriv.sensitive import (
    Detector,
    PresidioDetector,
    detector_quality,
    placeholder,
    resolve_overlaps,
)

GOLD = Path(__file__).parents[3] / "shared" / "data" / "pii_spans.json"
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
    return PresidioDetector()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_found_whole(detector: Detector, kind: str) -> None:
    before, value = KINDS[kind]
    start = len(before) + 1
    assert detector.detect(f"{before} {value} please") == (Span(start, start + len(value), kind),)


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
    assert {"PERSON", "LOCATION", "NRP", "ORGANIZATION"} <= set(detector.cannot_see)
    assert not set(detector.cannot_see) & set(detector.entity_types)
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


def test_threads_agree_with_one_thread(detector: Detector) -> None:
    texts = TEXTS * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(detector.detect, texts)) == [detector.detect(t) for t in texts]


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the detector opened a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert (
        PresidioDetector().detect("to someone@mail.example.co.uk")[0].entity_type == "EMAIL_ADDRESS"
    )


def test_placeholder_never_carries_odd_characters() -> None:
    assert placeholder("<script>") == "[SCRIPT]"
    assert placeholder("--") == "[PERSONAL_DATA]"


class _Fixed:
    name = "fixed"
    entity_types = ("A", "B")
    cannot_see = ()

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
    for kind in ("EMAIL_ADDRESS", "IP_ADDRESS", "US_SSN", "IBAN_CODE"):
        assert (quality[kind].recall or 0) >= 0.95
    assert (quality["PHONE_NUMBER"].recall or 0) >= 0.9
    assert quality["PERSON"].recall == 0.0
    assert quality["PERSON"].gold == 857
