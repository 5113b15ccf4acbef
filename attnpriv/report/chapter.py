"""What a chapter of the report says about a measure, and the figures that every format reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.report.formats import UNDEFINED, interval, number, share
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.report.blocks import Block
    from attnpriv.report.findings import Finding

NOT_RUN = "not run"
NAMES = re.compile(r"[^.\[]+(?:\[[^\]]*\])?")  # of a path, each with what stands in brackets
Kind = Literal["estimate", "guarantee", "most found", "verdict"]


@dataclass(frozen=True)
class Figure:
    """One figure of a run: named here, and nowhere else.

    Attributes:
        path: in ``AuditResult`` and in ``audit.json``, with dots between the names. ``[*]`` after a
            list is the mean over its entries, ``[0.02]`` the entry of that scale or number of
            edits.
        words: what people call it.
        kind: an estimate has an interval; a guarantee holds by a proof or an accountant, whatever
            was measured; of the most that was found there may be more; a verdict is a word.
        shown: as a plain number with its interval, or as a share in per cent.
        digits: that are shown.
        higher_is_worse: for the person whose data it is; None where that depends.
        main: whether it stands in the tables of main figures: the command's, the page's, the
            summary's and the study's.
        comparable: whether it is compared between two runs, record by record.
    """

    path: str
    words: str
    kind: Kind = "estimate"
    shown: Literal["number", "share"] = "number"
    digits: int = 2
    higher_is_worse: bool | None = None
    main: bool = False
    comparable: bool = False

    @property
    def part(self) -> str:
        """The field of ``AuditResult`` that it is in."""
        return self.path.partition(".")[0]

    @property
    def better(self) -> str:
        """Which way is better, in a word."""
        return {True: "lower", False: "higher", None: ""}[self.higher_is_worse]

    def of(self, result: AuditResult) -> Any:
        """The figure of a run: an estimate, a number, None without one, or ``NotRun``."""
        return _value(result, NAMES.findall(self.path))

    def text(self, result: AuditResult) -> str:
        """The same as people read it; guarantees are rounded up."""
        value = self.of(result)
        if isinstance(value, NotRun):
            return NOT_RUN
        if isinstance(value, Estimate):
            return share(value) if self.shown == "share" else interval(value, self.digits)
        if self.kind == "verdict":
            return str(value)
        if self.kind == "guarantee":
            return "none" if value is None else round_up(value, self.digits)
        return number(value, self.digits) if value is not None else UNDEFINED


def _value(of: Any, path: Sequence[str]) -> Any:
    """What a path leads to, in a result or in what a card holds."""
    if not path or of is None or isinstance(of, NotRun):
        return of
    name, _, which = path[0].rstrip("]").partition("[")
    found = of[name] if isinstance(of, dict) else getattr(of, name)
    if which == "*":
        return fmean(_value(entry, path[1:]) for entry in found)
    if which:
        found = next((entry for entry in found if _key(entry) == float(which)), None)
    return _value(found, path[1:])


def _key(entry: Any) -> float:
    """What the entries of a list of figures are told apart by."""
    return float(entry.edits if hasattr(entry, "edits") else entry.scale)


@dataclass(frozen=True)
class Question:
    """What a measure asks, how it answers, and what its figures mean.

    Attributes:
        question: in the words of whoever has to decide.
        method: in one sentence.
        finding: the answer for one run.
    """

    question: str
    method: str
    finding: Callable[[AuditResult], Finding]


@dataclass(frozen=True)
class Chapter:
    """One section of the page, and all that other formats say about its measure.

    Attributes:
        name: of the measure, and of the section.
        place: chapters stand in its order.
        title: of the section.
        body: the section, for all runs side by side.
        asks: its question; None for a section that only shows.
        figures: those that other places read too.
    """

    name: str
    place: int
    title: str
    body: Callable[[Sequence[AuditResult], bool], Iterable[Block]]
    asks: Question | None = None
    figures: tuple[Figure, ...] = ()
