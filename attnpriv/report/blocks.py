"""What a section of the page is made of; ``templates/blocks.html`` renders each kind.

Words are escaped wherever they come from, but for those of type ``Markup``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup

from attnpriv.estimates import Control, Estimate
from attnpriv.report.formats import number, percent

Words = str  # escaped, or Markup that stays as it is

UNCOVERED = Markup('<span class="flag">computed from the audited rows: not covered by ε</span>')


@dataclass(frozen=True)
class Text:
    """A paragraph; ``kind`` is a class of the page's style."""

    block: ClassVar = "text"
    words: Words
    kind: str = ""


@dataclass(frozen=True)
class Heading:
    """The name of a part of the section."""

    block: ClassVar = "heading"
    words: Words


@dataclass(frozen=True)
class Items:
    """A list."""

    block: ClassVar = "items"
    words: tuple[Words, ...]


@dataclass(frozen=True)
class Terms:
    """Terms, each with what is to be said about it."""

    block: ClassVar = "terms"
    pairs: tuple[tuple[Words, Words], ...]


@dataclass(frozen=True)
class Group:
    """Columns under a common heading."""

    words: Words
    columns: tuple[Words, ...]


@dataclass(frozen=True)
class Span:
    """A cell that takes several columns."""

    words: Words
    columns: int


Row = tuple[Words | Span, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading.

    Attributes:
        caption: what it shows; names the scroll region too, so each table's is its own.
        columns: of the header, which has two lines where some are grouped.
        rows: text by text.
    """

    block: ClassVar = "table"
    caption: Words
    columns: tuple[Words | Group, ...]
    rows: tuple[Row, ...]

    @property
    def lines(self) -> int:
        """Of the header."""
        return 2 if any(isinstance(column, Group) for column in self.columns) else 1


@dataclass(frozen=True)
class Plot:
    """An SVG with its caption; ``label`` names the scroll region."""

    block: ClassVar = "plot"
    svg: Markup
    label: str
    caption: Words


@dataclass(frozen=True)
class Controls:
    """What came of controls, by their names."""

    block: ClassVar = "controls"
    controls: tuple[tuple[str, Control], ...]


@dataclass(frozen=True)
class Details:
    """Blocks that are shown on demand; on paper, only short ones are."""

    block: ClassVar = "details"
    summary: Words
    blocks: tuple[Block, ...]
    long: bool = True


@dataclass(frozen=True)
class Box:
    """Blocks that belong together; ``kind`` is a class of the page's style."""

    block: ClassVar = "box"
    blocks: tuple[Block, ...]
    kind: str = ""


@dataclass(frozen=True)
class Grid:
    """Boxes side by side where there is room; ``roomy`` ones are wider."""

    block: ClassVar = "grid"
    boxes: tuple[Box, ...]
    roomy: bool = False


@dataclass(frozen=True)
class Token:
    """One box of a strip: its words, or None where they are hidden."""

    words: str | None
    colour: str
    joined: bool
    personal: bool


@dataclass(frozen=True)
class Strip:
    """The tokens of a record in a row, or, in ``columns``, the patches as they lie in an image."""

    block: ClassVar = "strip"
    label: str
    tokens: tuple[Token, ...]
    columns: int | None = None


@dataclass(frozen=True)
class How:
    """By which method figures were measured, and where they stand in ``audit.json``."""

    block: ClassVar = "how"
    path: str
    words: Words


Block = (
    Text | Heading | Items | Terms | Table | Plot | Controls | Details | Box | Grid | Strip | How
)


def est(estimate: Estimate, digits: int = 2) -> Words:
    """A number with its interval, in a cell."""
    if estimate.value is None:
        return number(None)
    low, high = number(estimate.low, digits), number(estimate.high, digits)
    return Markup("{} <small>[{}, {}]</small>").format(number(estimate.value, digits), low, high)


def part(estimate: Estimate) -> Words:
    """A share with its interval in per cent, in a cell."""
    if estimate.value is None:
        return percent(None)
    low, high = percent(estimate.low), percent(estimate.high)
    return Markup("{} <small>[{}, {}]</small>").format(percent(estimate.value), low, high)


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """The range that chance gives, in a cell."""
    return f"{number(low, digits)} to {number(high, digits)}"


def validity(valid: bool) -> tuple[Block, ...]:
    """A warning where controls failed; nothing where they passed."""
    if valid:
        return ()
    return (Text("INVALID: A CONTROL FAILED, SO THESE FIGURES SAY NOTHING.", "capitals"),)


def both(positive: Control, null: Control, of: str = "") -> tuple[tuple[str, Control], ...]:
    """The two controls of a measure, by name."""
    end = f" ({of})" if of else ""
    return (f"Positive{end}", positive), (f"Null{end}", null)


def flat(groups: Iterable[Sequence[Block]]) -> tuple[Block, ...]:
    """The blocks of all groups in one row."""
    return tuple(block for group in groups for block in group)
