"""Behavioural tests: files of them, when a case fails, and what stands in the report."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from attnpriv.audit.checklist.behaviour import ChecklistResult, behaviour
from attnpriv.audit.checklist.files import Checklist, default_checklist, load_checklist
from attnpriv.errors import InputError

FILE = """
[slots]
name = ["Anna", "Karim", "Mei"]
day = ["Monday", "Tuesday"]

[[test]]
name = "another name"
vary = "name"
templates = ["{name} calls on {day}", "ask {name}"]

[[test]]
name = "a prize makes it no less spam"
kind = "direction"
label = "spam"
expect = "not lower"
templates = ["Call on {day}"]
add = [" You have won.", " Free!"]
"""
LABELS = ("ham", "spam")


@pytest.fixture
def tests_of(tmp_path: Path) -> Any:
    def read(content: str) -> Checklist:
        path = tmp_path / "tests.toml"
        path.write_text(content, encoding="utf-8")
        return load_checklist(path)

    return read


def reads(word: str, spam: float = 1.0, else_: float = 0.0) -> Any:
    """Answers with these probabilities of spam, where the word is and where it is not."""

    def answer(texts: Sequence[str]) -> np.ndarray:
        p = np.array([spam if word in text else else_ for text in texts])
        return np.stack([1 - p, p], axis=1)

    return answer


def outcome(result: ChecklistResult) -> dict[str, tuple[float | None, int, int | None]]:
    return {t.name: (t.failures.value, t.cases, t.worst_template) for t in result.tests}


def test_slots_are_filled_and_the_one_that_varies_takes_all_its_values(tests_of: Any) -> None:
    names, prize = tests_of(FILE).tests
    assert [(case.template, case.text, case.changed) for case in names.cases] == [
        (1, "Anna calls on Monday", ("Karim calls on Monday", "Mei calls on Monday")),
        (1, "Anna calls on Tuesday", ("Karim calls on Tuesday", "Mei calls on Tuesday")),
        (2, "ask Anna", ("ask Karim", "ask Mei")),
    ]
    assert prize.cases[0].changed == ("Call on Monday You have won.", "Call on Monday Free!")


def test_a_case_fails_where_any_change_does(tests_of: Any) -> None:
    tests = tests_of(FILE)
    mei = behaviour(tests, reads("ask Mei"), LABELS)
    assert outcome(mei) == {
        "another name": (pytest.approx(1 / 3), 3, 2),
        "a prize makes it no less spam": (0.0, 2, None),
    }
    assert mei.invariance.value == pytest.approx(1 / 3)
    assert mei.invariance.low < 1 / 3 < mei.invariance.high
    won = behaviour(tests, reads("won", spam=0.1, else_=0.3), LABELS)
    assert won.direction.value == 1.0
    assert won.invariance.value == 0.0
    slightly = behaviour(tests, reads("won", spam=0.25, else_=0.3), LABELS)
    assert slightly.direction.value == 0.0  # within the tolerance
    for each in (mei, won, slightly):
        assert each.valid
        assert (each.positive.measured > 0, each.null.measured) == (True, 0)


def test_not_higher_is_the_other_direction(tests_of: Any) -> None:
    tests = tests_of(FILE.replace('"not lower"', '"not higher"\ntolerance = 0.5'))
    assert behaviour(tests, reads("won", spam=0.9), LABELS).direction.value == 1.0
    assert behaviour(tests, reads("won", spam=0.4), LABELS).direction.value == 0.0
    assert behaviour(tests, reads("won", spam=0.0, else_=1.0), LABELS).direction.value == 0.0


def test_tests_about_other_classes_are_left_out(tests_of: Any) -> None:
    result = behaviour(tests_of(FILE), reads("Mei"), ("calm", "urgent"))
    assert result.left_out == ("a prize makes it no less spam",)
    assert [test.name for test in result.tests] == ["another name"]
    assert result.direction.value is None


def test_the_tests_that_come_along_are_sound() -> None:
    tests = default_checklist()
    result = behaviour(tests, reads("Karim"), LABELS)
    assert result.valid
    assert 150 < len(tests.texts) < 1000
    failed = [test.name for test in result.tests if test.failures.value]
    assert failed == ["another first name"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[slots]", "[slot]", "expected [slots] and [[test]], got 'slot'"),
        ('vary = "name"', 'vary = "day"', "test 1: expected vary to be a slot of every template"),
        ('vary = "name"', "", "test 1: expected vary to be a slot of every template, got None"),
        ("ask {name}", "ask {who}", "test 1: there is no slot 'who'"),
        ("ask {name}", "ask {name}}", "test 1: expected braces around names of slots alone"),
        ('"Karim", "Mei"', '"Anna"', "test 1: expected slot name to have two values or more"),
        ('"direction"', '"other"', "test 2: expected kind invariance or direction, got 'other'"),
        ("add =", "ad =", "test 2: direction tests have no 'ad'"),
        ('"not lower"', '"lower"', "test 2: expected expect not lower or not higher, got 'lower'"),
        ('label = "spam"', "", "test 2: expected the label that it is about, got None"),
        ('label = "spam"', 'label = "spam"\ntolerance = 1', "test 2: expected a tolerance"),
        ("a prize makes it no less spam", "another name", "each test to have a name of its own"),
        ('name = "another name"', "name = 1", "test 1: expected a name of 1 to 200"),
        ('day = ["Monday", "Tuesday"]', "day = []", "slot day: expected a list of texts"),
        ("[slots]", "slots = 1\n[x]", "expected [slots] and [[test]], got 'x'"),
        ("[slots]", "[slots", "expected TOML in UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_place(
    tests_of: Any, old: str, new: str, message: str
) -> None:
    assert FILE.count(old) >= 1
    with pytest.raises(InputError, match=re.escape(message)):
        tests_of(FILE.replace(old, new))


def test_files_without_tests_or_too_large_or_missing_are_refused(
    tests_of: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="expected at least one"):
        tests_of("[slots]\n")
    with pytest.raises(InputError, match="expected at most 1048576 bytes"):
        tests_of("#" * 2**20 + "\n")
    many = ", ".join(f'"{number}"' for number in range(20_001))
    with pytest.raises(InputError, match="expected at most 20000 texts"):
        tests_of(f'slots.x = [{many}]\n[[test]]\nname = "x"\nvary = "x"\ntemplates = ["{{x}}"]\n')
    with pytest.raises(InputError, match="cannot read"):
        load_checklist(tmp_path / "nowhere.toml")


def test_the_command_refuses_tests_of_other_classes_alone(
    tiny_run: Path, tmp_path: Path, command: Any
) -> None:
    file = tmp_path / "tests.toml"
    head, _, tail = FILE.partition("[[test]]")
    file.write_text(head + "[[test]]" + tail.partition("[[test]]")[2], encoding="utf-8")
    usual = ("audit", tiny_run, "--data", "tickets:rows=200", "--out", tmp_path / "out")
    outcome = command(*usual, "--checklist", file)
    assert outcome.code == 2
    assert "tests.toml: expected tests of invariance, or about one of the classes" in outcome.err
    with_noise = command(*usual, "--checklist", file, "--epsilon", 3)
    assert with_noise.code == 2
    assert "--checklist cannot be used with --epsilon" in with_noise.err
