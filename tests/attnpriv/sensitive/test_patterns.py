"""Addresses, dates, announced names and hosts, without a language model; and hostile texts."""

from __future__ import annotations

import pytest

from attnpriv.errors import DetectionError
from attnpriv.sensitive import Detector, PresidioDetector, Rules, patterns


@pytest.fixture(scope="module")
def detector() -> Detector:
    return PresidioDetector(Rules(language_model="none"))


ADDRESSES = [
    "221B Baker Street",
    "12 Elm Rd, Springfield, IL 62704",
    "1600 Pennsylvania Ave NW, Washington, DC 20500",
    "85254 Brennan Prairie Apt. 539, Anthonytown, LA 96223",
    "10 Rue de la Paix",
    "Via delle Coste 41",
    "Hauptstra\u00dfe 5, 10115 Berlin",
    "ul. S\u0142owicza 10",
    "Kalevankatu 12",
    "P.O. Box 211",
    "PSC 3294, Box 9168",
    "350 Fifth Avenue\nSuite 3300\nNew York, NY 10118",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_of_many_countries_are_hidden_whole(detector: Detector, address: str) -> None:
    text = f"They live at {address}."
    spans = detector.detect(text)
    covered = {place for span in spans for place in range(span.start, span.end)}
    start = text.index(address)
    within = range(start, start + len(address))
    assert {place for place in within if text[place].isalnum()} <= covered
    assert "STREET_ADDRESS" in {span.entity_type for span in spans}


@pytest.mark.parametrize(
    "text",
    [
        "I ordered 3 Red Shirts, and 2 Blue Hats.",
        "Chapter 12 begins on page 40",
        "We met in Room 5 in 1999",
        "The 2nd Battalion had 400 men",
        "Version 3.11 of Python, released in October",
        "the park is near the hill by the bridge",
    ],
)
def test_what_is_no_address_is_left_alone(detector: Detector, text: str) -> None:
    assert detector.detect(text) == ()


@pytest.mark.parametrize(
    "date",
    [
        "11 February 2025",
        "February 11, 2025",
        "3rd of May",
        "Sept. 2019",
        "2025-02-21",
        "15/03/2026",
        "2012-10-01 00:46:43",
        "1/2/2024 at 10:30 pm",
        "21-Jan-1999",
    ],
)
def test_dates_in_digits_and_words_are_found_whole(detector: Detector, date: str) -> None:
    text = f"all this began on {date} or so"
    (span,) = detector.detect(text)
    assert (text[span.start : span.end], span.entity_type) == (date, "DATE_TIME")


@pytest.mark.parametrize("card", ["503890547220", "4825140226032", "180065008155082"])
def test_cards_of_12_13_and_15_digits_are_cards(detector: Detector, card: str) -> None:
    text = f"my card {card} please"
    (span,) = detector.detect(text)
    assert (text[span.start : span.end], span.entity_type) == (card, "CREDIT_CARD")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("please correct it to Mr. Marcin Wi\u015bniewski?", "Marcin Wi\u015bniewski"),
        ("my name is Vitoria Souza.", "Vitoria Souza"),
        ("i am Anna Smith and", "Anna Smith"),
        ("It broke. Kind regards, Hans-Dieter Junck", "Hans-Dieter Junck"),
        ("Dear Tom,\nit broke", "Tom"),
    ],
)
def test_announced_names_are_found_without_a_model(
    detector: Detector, text: str, name: str
) -> None:
    (span,) = detector.detect(text)
    assert (text[span.start : span.end], span.entity_type) == (name, "PERSON")


def test_nobody_is_called_support(detector: Detector) -> None:
    assert detector.detect("Dear Support,\nit broke") == ()


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("see example.org for more", "example.org"),
        ("see www.example.co.uk/a?b=1 for", "www.example.co.uk/a?b=1"),
        ("at https://UEarly.se/ or", "https://UEarly.se/"),
        ("the file is http://localhost:8000/x", "http://localhost:8000/x"),
    ],
)
def test_hosts_and_addresses_of_pages_are_found(detector: Detector, text: str, host: str) -> None:
    (span,) = detector.detect(text)
    assert (text[span.start : span.end], span.entity_type) == (host, "URL")


@pytest.mark.parametrize("text", ["e.g. this", "a.m. or p.m", "notes.txt", "1.2.3", "end.Then go"])
def test_what_only_looks_like_a_host_is_left_alone(detector: Detector, text: str) -> None:
    assert detector.detect(text) == ()


@pytest.mark.parametrize("piece", ["1.", "a.", "a.b@", "Aa "])
def test_64_kilobytes_of_hostile_text_are_searched(detector: Detector, piece: str) -> None:
    # Presidio's own pattern of hosts takes a minute for the first two.
    text = (piece * 65536)[:65536]
    assert all(span.end <= len(text) for span in detector.detect(text))


def test_a_pattern_that_takes_too_long_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    rules = Rules.model_validate(
        {
            "language_model": "none",
            "recognizers": [{"entity_type": "SLOW", "patterns": [r"(x+x+)+y"]}],
        }
    )
    slow = PresidioDetector(rules)
    assert slow.detect("nothing of it") == ()
    with pytest.raises(DetectionError, match="cannot be searched for personal data within"):
        slow.detect("x" * 4000)
