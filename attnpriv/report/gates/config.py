"""``gates.toml``: which measure must be at most or at least what, or have which verdict."""

from __future__ import annotations

import math
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from attnpriv.errors import InputError
from attnpriv.verdicts import Verdict

AT_MOST, AT_LEAST, ONE_OF = OPERATORS = ("at most", "at least", "one of")
CONFIDENCE = 0.95  # of every interval in a report
NEEDED_N = 30  # below it, a bootstrap's interval is too narrow to be believed
TYPES: dict[str, tuple[tuple[type, ...], str]] = {
    "name": ((str,), "a string"),
    "measure": ((str,), "a string"),
    "operator": ((str,), "a string"),
    "threshold": ((int, float), "a number"),
    "verdicts": ((list,), "a list of verdicts"),
    "run": ((str,), "a string"),
    "against": ((str,), "a string"),
    "subset": ((dict,), "a table"),
    "confidence": ((int, float), "a number"),
    "minimum_n": ((int,), "a whole number"),
    "allow_inconclusive": ((bool,), "true or false"),
}
REQUIRED = ("name", "measure", "operator")


@dataclass(frozen=True)
class Gate:
    """One limit.

    Attributes:
        name: by which CI shows it.
        measure: dotted path into the results of a run, such as ``attention.overall.lift``;
            ``[*]`` after a list asks every entry of it to keep the limit.
        operator: ``at most`` or ``at least`` a threshold, or ``one of`` some verdicts.
        threshold: the limit itself, which keeps it; NaN where verdicts are named.
        run: name of the run; None where the report has only one.
        against: the run it is compared with; ``measure`` then is a path into that comparison.
        subset: which entry of a list is meant, such as ``{layer: 0, head: 2}``.
        confidence: of the interval; a report has but one.
        minimum_n: fewer records than that are too few; None asks for ``NEEDED_N`` wherever the
            report gives their number.
        allow_inconclusive: whether an inconclusive gate lets CI go green.
        line: where it begins in its file.
        verdicts: of an attack, those that are allowed.

    Raises:
        InputError: a name that cannot be printed in one line, an operator or a confidence that
            there is not, a threshold that is not finite, or a minimum below 1.
    """

    name: str
    measure: str
    operator: str
    threshold: float = math.nan
    run: str | None = None
    against: str | None = None
    subset: dict[str, str | float] = field(default_factory=dict)
    confidence: float = CONFIDENCE
    minimum_n: int | None = None
    allow_inconclusive: bool = False
    line: int = 1
    verdicts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name.strip() or not self.name.isprintable():
            raise InputError(f"expected a gate's name in one printable line, got {self.name!r}")
        if self.operator not in OPERATORS:
            self._refuse("operator", "at most, at least or one of", self.operator)
        if self.operator == ONE_OF:
            self._check_verdicts()
        elif self.verdicts:
            self._refuse("verdicts", f"left out unless the operator is {ONE_OF}", self.verdicts)
        elif not abs(self.threshold) <= sys.float_info.max:  # whole numbers have no largest
            self._refuse("threshold", "a finite number", self.threshold)
        if self.confidence != CONFIDENCE:
            expected = f"{CONFIDENCE}, as the report's intervals are 95 % intervals"
            self._refuse("confidence", expected, self.confidence)
        if self.minimum_n is not None and self.minimum_n < 1:
            self._refuse("minimum_n", "at least 1", self.minimum_n)
        for key, value in self.subset.items():
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                self._refuse(f"subset.{key}", "a string or a number", value)

    @property
    def limit(self) -> str:
        """What must be kept, in words."""
        wanted = ", ".join(self.verdicts) if self.verdicts else f"{self.threshold:g}"
        return f"{self.operator} {wanted}"

    def _check_verdicts(self) -> None:
        known = get_args(Verdict)
        if not self.verdicts or not all(verdict in known for verdict in self.verdicts):
            self._refuse("verdicts", f"some of {', '.join(known)}", list(self.verdicts))
        if not math.isnan(self.threshold):
            self._refuse("threshold", f"left out beside {ONE_OF}", self.threshold)

    def _refuse(self, key: str, expected: str, got: object) -> None:
        raise InputError(f"gate {self.name!r}: expected {key} to be {expected}, got {got!r}")


def read_gates(path: str | Path) -> tuple[Gate, ...]:
    """The gates of a file, in its order.

    Raises:
        InputError: the file cannot be read, is no TOML, holds no gate, or a gate with an unknown
            key, a wrong type, or another's name.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # no UTF-8, or no TOML
        raise InputError(f"{path} is not a TOML file: {error}") from error
    try:
        return _gates(tables, text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _gates(tables: dict[str, Any], text: str) -> tuple[Gate, ...]:
    for key in tables:
        if key != "gate":
            raise InputError(f"expected [[gate]] tables only, got {key!r}")
    entries = tables.get("gate")
    if not isinstance(entries, list) or not entries:
        raise InputError("expected at least one [[gate]] table")
    lines = _lines(text, len(entries))
    gates = tuple(_gate(*numbered) for numbered in zip(entries, lines, strict=True))
    names = [gate.name for gate in gates]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"expected each gate to have a name of its own, got {name!r} twice")
    return gates


def _gate(entry: Any, line: int) -> Gate:
    if not isinstance(entry, dict):
        raise InputError(f"expected [[gate]] tables, got {entry!r}")
    name = entry.get("name")
    where = f"gate {name!r}" if isinstance(name, str) else f"the gate in line {line}"
    for key, value in entry.items():
        _check_type(where, key, value)
    limit = "verdicts" if entry.get("operator") == ONE_OF else "threshold"
    for key in (*REQUIRED, limit):
        if key not in entry:
            raise InputError(f"{where} has no {key}")
    verdicts = tuple(entry.get("verdicts", ()))
    return Gate(**{**entry, "verdicts": verdicts}, line=line)


def _check_type(where: str, key: str, value: object) -> None:
    if key not in TYPES:
        raise InputError(f"{where}: expected keys among {', '.join(TYPES)}, got {key!r}")
    types, words = TYPES[key]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise InputError(f"{where}: expected {key} to be {words}, got {value!r}")


def _lines(text: str, gates: int) -> list[int]:
    """The lines of the tables' headers, for CI to point at; 1 where they were written otherwise."""
    header = re.compile(r"\s*\[\[\s*gate\s*\]\]")
    found = [number for number, line in enumerate(text.splitlines(), 1) if header.match(line)]
    return found if len(found) == gates else [1] * gates
