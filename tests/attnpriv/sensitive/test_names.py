"""Names and places by the language model, and the pinned files that it is read from."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest

from attnpriv.data.records import Span
from attnpriv.errors import InputError
from attnpriv.sensitive import Detector, PresidioDetector
from attnpriv.sensitive.names import check_files, load_names
from attnpriv.sensitive.packages import PACKAGES
from attnpriv.sensitive.readings import OVERLAP, PIECE, as_prose, pieces

GOLD = Path(__file__).parents[4] / "shared" / "data" / "pii_spans.json"
MODEL = "en_core_web_sm"
TEXTS = [
    "Maria Lopez lives in Rome and works for Siemens.",
    "please write to john miller in london about the bill",
    "Dear support,\n\nI have not got my parcel.\n\nRegards,\nKaren Fletcher",
    "nothing to see here",
    "",
]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return PresidioDetector()


def _found(detector: Detector, text: str) -> list[tuple[str, str]]:
    return [(text[s.start : s.end], s.entity_type) for s in detector.detect(text)]


def test_people_places_and_organisations_are_found(detector: Detector) -> None:
    assert _found(detector, TEXTS[0]) == [
        ("Maria Lopez", "PERSON"),
        ("Rome", "LOCATION"),
        ("Siemens", "ORGANIZATION"),
    ]


def test_names_without_capitals_and_in_signatures_are_found(detector: Detector) -> None:
    assert ("john miller", "PERSON") in _found(detector, TEXTS[1])
    assert _found(detector, TEXTS[2]) == [("Karen Fletcher", "PERSON")]


def test_a_surname_is_found_again_where_it_stands_alone(detector: Detector) -> None:
    text = "Mr Brad Okonkwo called. Has Okonkwo paid?"
    assert _found(detector, text) == [("Brad Okonkwo", "PERSON"), ("Okonkwo", "PERSON")]


def test_texts_together_are_read_as_each_alone(detector: Detector) -> None:
    assert detector.detect_all(TEXTS) == [detector.detect(text) for text in TEXTS]


def test_a_name_is_found_at_every_place_of_a_long_text(detector: Detector) -> None:
    for before in (PIECE - OVERLAP - 5, PIECE - 5, 2 * PIECE):
        text = "the parcel is late. " * (before // 20) + "My name is Maria Lopez."
        start = text.index("Maria")
        assert Span(start, start + 11, "PERSON") in detector.detect(text)


def test_no_word_is_kept_between_calls(detector: Detector) -> None:
    detector.detect("Zyxqwert Plomwarth lives in Rome.")
    assert "Plomwarth" not in load_names(MODEL)._pipeline.vocab.strings


def test_what_it_misses_is_said(detector: Detector) -> None:
    assert {"AGE", "YEAR", "SHORT_NUMBER", "ZIP_CODE"} <= set(detector.cannot_see)
    assert "PERSON" not in detector.cannot_see
    assert detector.name == f"presidio-{MODEL}"


def test_another_file_is_refused(tmp_path: Path) -> None:
    package = PACKAGES[MODEL]
    spec = importlib.util.find_spec(package.module)
    assert spec is not None
    assert spec.origin is not None
    folder = Path(shutil.copytree(Path(spec.origin).parent / package.folder, tmp_path / "model"))
    check_files(folder, package.files)
    weights = folder / "ner" / "model"
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="ner/model with sha256 cd93e9ca9126c69f"):
        check_files(folder, package.files)
    weights.unlink()
    with pytest.raises(InputError, match="cannot read the language model"):
        check_files(folder, package.files)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InputError, match="expected language model en_core_web_sm or"):
        load_names("en_core_web_xl")


@pytest.mark.parametrize(
    "text",
    ["", "A", "STRASSE \u1e9e \u0130I\n> \ufb01x\n\n??? ab", "> ANNA\n- smith\n", "i\u0307 NOT"],
)
def test_reading_as_prose_moves_no_character(text: str) -> None:
    prose = as_prose(text)
    assert len(prose) == len(text)
    assert all(a == b or not a.isdecimal() for a, b in zip(text, prose, strict=True))


@pytest.mark.parametrize("length", [0, 1, PIECE - OVERLAP, PIECE, PIECE + 1, 3 * PIECE + 17])
def test_pieces_cover_a_text_and_overlap(length: int) -> None:
    text = "".join(chr(97 + i % 26) for i in range(length))
    found = list(pieces(text))
    assert all(text[start : start + len(piece)] == piece for start, piece in found)
    ends = [start + len(piece) for start, piece in found]
    assert ends[-1] == length
    assert all(end - start == OVERLAP for end, (start, _) in zip(ends, found[1:], strict=False))


@pytest.mark.skipif(not GOLD.exists(), reason="the shared gold spans are not on this machine")
def test_most_gold_names_are_hidden_whole(detector: Detector) -> None:
    rows = json.loads(GOLD.read_text())[::5]
    least = {"PERSON": 0.8, "GPE": 0.85, "ORGANIZATION": 0.6, "STREET_ADDRESS": 0.75}
    hidden: dict[str, list[bool]] = {kind: [] for kind in least}
    found = detector.detect_all([row["full_text"] for row in rows])
    for row, spans in zip(rows, found, strict=True):
        covered = {place for span in spans for place in range(span.start, span.end)}
        for gold in row["spans"]:
            places = range(gold["start_position"], gold["end_position"])
            visible = {place for place in places if row["full_text"][place].isalnum()}
            hidden.get(gold["entity_type"], []).append(visible <= covered)
    shares = {kind: sum(whole) / len(whole) for kind, whole in hidden.items()}
    assert all(shares[kind] >= share for kind, share in least.items()), shares
