"""Files of behavioural tests: templates with slots, and what must stay when a slot changes.

::

    [slots]
    name = ["Anna", "Karim"]
    day = ["Monday", "Tuesday"]

    [[test]]
    name = "another name"
    vary = "name"                           # the answer must be the same for all of its values
    templates = ["{name} calls on {day}"]

    [[test]]
    name = "a prize makes it no less spam"
    kind = "direction"
    label = "spam"
    expect = "not lower"                    # or "not higher", by more than the tolerance
    templates = ["Call on {day}"]
    add = [" You have won."]                # each is put behind the text

Each template gives up to ``FILLINGS`` cases: the slots that do not vary take their values in step.
Source: Ribeiro et al. 2020 (CheckList, arXiv:2005.04118), invariance and directional tests.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from attnpriv.data.tokenisation import check_unicode
from attnpriv.errors import InputError

FILLINGS = 3  # of a template with other slots than the one that varies
MOST_TEXTS, MOST_CHARACTERS, MOST_BYTES = 20_000, 10_000, 2**20
DEFAULT = "the tests that come with attnpriv"
TOLERANCE = 0.1
Kind = Literal["invariance", "direction"]
Expect = Literal["not lower", "not higher"]

_SLOT = re.compile(r"\{([a-z_]+)\}")
_KEYS: dict[Kind, frozenset[str]] = {
    "invariance": frozenset({"name", "kind", "templates", "vary"}),
    "direction": frozenset({"name", "kind", "templates", "add", "label", "expect", "tolerance"}),
}


@dataclass(frozen=True)
class Case:
    """A text and what becomes of it.

    Attributes:
        template: its number within the test, from 1.
        text: as it is first.
        changed: the same with another value, or with something added; at least one.
    """

    template: int
    text: str
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Behaviour:
    """One test of a file.

    Attributes:
        name: in the report.
        kind: ``invariance``: the label must stay; ``direction``: a class's probability must not
            fall, or not rise.
        cases: at least one.
        label: whose probability it is about; None for invariance.
        expect: what it must not do.
        tolerance: by how much it may do so.
    """

    name: str
    kind: Kind
    cases: tuple[Case, ...]
    label: str | None = None
    expect: Expect = "not lower"
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Checklist:
    """The tests of a file.

    Attributes:
        source: the file's name, without its folder.
        sha256: of its content.
        tests: at least one.
    """

    source: str
    sha256: str
    tests: tuple[Behaviour, ...]

    def about(self, label_names: Sequence[str]) -> tuple[Behaviour, ...]:
        """The tests of invariance, and those about one of these classes."""
        return tuple(t for t in self.tests if t.label is None or t.label in label_names)

    @property
    def texts(self) -> list[str]:
        """Every text once, in order."""
        cases = [case for test in self.tests for case in test.cases]
        return [*dict.fromkeys(text for case in cases for text in (case.text, *case.changed))]


@cache
def default_checklist() -> Checklist:
    """The tests that come with attnpriv."""
    content = files("attnpriv.audit.checklist").joinpath("default.toml").read_bytes()
    return _read(content, DEFAULT)


def load_checklist(path: Path) -> Checklist:
    """Read a file of tests.

    Raises:
        InputError: it cannot be read, is not such a file, or has too many texts. The message names
            the place.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    try:
        return _read(content, path.name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read(content: bytes, source: str) -> Checklist:
    if len(content) > MOST_BYTES:
        raise InputError(f"expected at most {MOST_BYTES} bytes, got {len(content)}")
    try:
        values = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected TOML in UTF-8: {error}") from None
    if unknown := sorted(values.keys() - {"slots", "test"}):
        raise InputError(f"expected [slots] and [[test]], got {unknown[0]!r}")
    slots = _slots(values.get("slots", {}))
    tables = values.get("test")
    if not (isinstance(tables, list) and tables and all(isinstance(t, dict) for t in tables)):
        raise InputError("expected at least one [[test]]")
    tests = [_test(table, slots, f"test {number}") for number, table in enumerate(tables, 1)]
    names = [test.name for test in tests]
    if len(set(names)) < len(names):
        raise InputError("expected each test to have a name of its own")
    found = Checklist(source, hashlib.sha256(content).hexdigest(), tuple(tests))
    if len(found.texts) > MOST_TEXTS:
        raise InputError(f"expected at most {MOST_TEXTS} texts, got {len(found.texts)}")
    return found


def _slots(table: Any) -> dict[str, list[str]]:
    if not isinstance(table, dict):
        raise InputError("expected slots as a table of lists, [slots]")
    return {name: _strings(values, f"slot {name}") for name, values in table.items()}


def _test(table: Mapping[str, Any], slots: Mapping[str, Sequence[str]], where: str) -> Behaviour:
    kind = table.get("kind", "invariance")
    if kind not in _KEYS:
        raise InputError(f"{where}: expected kind invariance or direction, got {kind!r}")
    if unknown := sorted(table.keys() - _KEYS[kind]):
        raise InputError(f"{where}: {kind} tests have no {unknown[0]!r}")
    name = table.get("name")
    if not (isinstance(name, str) and name.strip() and len(name) <= 200):
        raise InputError(f"{where}: expected a name of 1 to 200 characters")
    templates = _strings(table.get("templates"), f"{where}: templates")
    for template in templates:
        if set("{}") & set(_SLOT.sub("", template)):
            raise InputError(
                f"{where}: expected braces around names of slots alone, which are small letters "
                "and underscores"
            )
        for slot in _SLOT.findall(template):
            if slot not in slots:
                raise InputError(f"{where}: there is no slot {slot!r} under [slots]")
    if kind == "invariance":
        cases = [*_varied(table.get("vary"), templates, slots, where)]
        return Behaviour(name, "invariance", tuple(cases))
    return _direction(table, name, templates, slots, where)


def _varied(
    vary: Any, templates: Sequence[str], slots: Mapping[str, Sequence[str]], where: str
) -> Iterator[Case]:
    for number, template in enumerate(templates, 1):
        if vary not in _SLOT.findall(template):
            raise InputError(f"{where}: expected vary to be a slot of every template, got {vary!r}")
        if len(set(slots[vary])) < 2:
            raise InputError(f"{where}: expected slot {vary} to have two values or more")
        for others in _fillings(template, slots, vary):
            first, *rest = dict.fromkeys(
                _filled(template, {**others, vary: value}) for value in slots[vary]
            )
            yield Case(number, first, tuple(rest))


def _direction(
    table: Mapping[str, Any],
    name: str,
    templates: Sequence[str],
    slots: Mapping[str, Sequence[str]],
    where: str,
) -> Behaviour:
    label, expect = table.get("label"), table.get("expect")
    tolerance = table.get("tolerance", TOLERANCE)
    if not (isinstance(label, str) and label):
        raise InputError(f"{where}: expected the label that it is about, got {label!r}")
    if expect not in ("not lower", "not higher"):
        raise InputError(f"{where}: expected expect not lower or not higher, got {expect!r}")
    if type(tolerance) not in (int, float) or not 0 <= tolerance < 1:
        raise InputError(f"{where}: expected a tolerance from 0 to below 1, got {tolerance!r}")
    added = _strings(table.get("add"), f"{where}: add")
    cases = [
        Case(number, text, tuple(text + each for each in added))
        for number, template in enumerate(templates, 1)
        for others in _fillings(template, slots, None)
        for text in [_filled(template, others)]
    ]
    return Behaviour(name, "direction", tuple(cases), label, expect, float(tolerance))


def _fillings(
    template: str, slots: Mapping[str, Sequence[str]], vary: str | None
) -> Iterator[dict[str, str]]:
    """Values for the slots of a template that do not vary, in step."""
    others = [slot for slot in dict.fromkeys(_SLOT.findall(template)) if slot != vary]
    longest = max((len(slots[slot]) for slot in others), default=1)
    for number in range(min(FILLINGS, longest)):
        yield {slot: slots[slot][number % len(slots[slot])] for slot in others}


def _filled(template: str, values: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda match: values[match[1]], template)


def _strings(values: Any, where: str) -> list[str]:
    if not (isinstance(values, list) and values and all(isinstance(v, str) for v in values)):
        raise InputError(f"{where}: expected a list of texts, with one at least")
    for value in values:
        check_unicode(value)
        if len(value) > MOST_CHARACTERS:
            raise InputError(f"{where}: expected at most {MOST_CHARACTERS} characters a text")
    return values
