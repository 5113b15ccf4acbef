"""The file of one's own rules: what it does, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from attnpriv.errors import InputError
from attnpriv.sensitive import PresidioDetector, load_rules

FILE = r"""
language_model = "none"
allow = ["0800 169 6031", "help@example.com"]

[deny]
PROJECT = ["Bluebird", "C++ (new)"]

[[recognizers]]
entity_type = "ORDER_ID"
patterns = ['\b[A-Z]{2}-\d{5}\b']

[[recognizers]]
entity_type = "BADGE"
patterns = ['\b\d{4}\b']
context = ["badge"]
"""


def _detector(tmp_path: Path, content: str = FILE) -> PresidioDetector:
    path = tmp_path / "detection.toml"
    path.write_text(content)
    return PresidioDetector(load_rules(path))


def _found(detector: PresidioDetector, text: str) -> list[tuple[str, str]]:
    return [(text[s.start : s.end], s.entity_type) for s in detector.detect(text)]


def test_own_recognisers_and_denied_words_are_hidden(tmp_path: Path) -> None:
    detector = _detector(tmp_path)
    text = (
        "bluebird and C++ (new): order ZA-07438, badge no. 1234; bluebirds" + " so" * 20 + " 2024"
    )
    assert _found(detector, text) == [
        ("bluebird", "PROJECT"),
        ("C++ (new)", "PROJECT"),
        ("ZA-07438", "ORDER_ID"),
        ("1234", "BADGE"),
    ]
    assert {"ORDER_ID", "PROJECT", "BADGE"} <= set(detector.entity_types)


def test_a_context_word_too_far_away_does_not_count(tmp_path: Path) -> None:
    assert _found(_detector(tmp_path), "badge " + "so " * 20 + "1234") == []


def test_what_is_allowed_is_shown_but_only_exactly(tmp_path: Path) -> None:
    detector = _detector(tmp_path)
    assert _found(detector, "call 0800 169 6031 or HELP@example.com") == []
    assert _found(detector, "call 0800 169 6032") == [("0800 169 6032", "PHONE_NUMBER")]


def test_denied_comes_before_allowed(tmp_path: Path) -> None:
    content = 'language_model = "none"\nallow = ["Bluebird"]\n[deny]\nPROJECT = ["Bluebird"]'
    assert _found(_detector(tmp_path, content), "Bluebird") == [("Bluebird", "PROJECT")]


def test_an_own_type_is_no_longer_said_to_be_unseen(tmp_path: Path) -> None:
    content = (
        'language_model = "none"\n[[recognizers]]\n'
        "entity_type = 'AGE'\npatterns = ['\\d\\d years old']"
    )
    assert "AGE" not in _detector(tmp_path, content).cannot_see


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "detection.toml"
    path.write_text("")
    assert load_rules(path).language_model == "en_core_web_sm"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("allow = [1]", "allow.0: Input should be a valid string"),
        ("alow = []", "alow: Extra inputs are not permitted"),
        ('language_model = "gpt"', "language_model: Input should be 'en_core_web_sm'"),
        ("[deny]\nproject = ['a']", "deny.project"),
        ("[deny]\nPROJECT = []", "deny.PROJECT: List should have at least 1 item"),
        ("[[recognizers]]\nentity_type = 'A'", "recognizers.0.patterns: Field required"),
        (
            "[[recognizers]]\nentity_type = 'A'\npatterns = ['(']",
            r"recognizers.0.patterns: .*'\(' is no regular expression",
        ),
        (
            "[[recognizers]]\nentity_type = 'A'\npatterns = ['a']\nscore = 2",
            "recognizers.0.score: Input should be less than or equal to 1",
        ),
        ("allow = [", "cannot read detection rules"),
    ],
)
def test_a_wrong_file_gets_one_clear_error(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "detection.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        load_rules(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read detection rules .*none\.toml"):
        load_rules(tmp_path / "none.toml")
