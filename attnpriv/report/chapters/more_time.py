"""What more time would buy: how narrow the intervals of the leakage measures would become."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.report.blocks import Block, Heading, How, Items, Text
from attnpriv.report.chapter import Chapter

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult

TIMES = (2, 4)


@dataclass(frozen=True)
class Measured:
    """One figure: on how many records or secrets, and its interval."""

    words: str
    records: int
    value: Estimate


def measured(run: AuditResult) -> Iterator[Measured]:
    """The figures whose intervals more records make narrower."""
    if not isinstance(run.membership, NotRun):
        of = run.membership
        yield Measured("Membership, AUC", of.members + of.non_members, of.auc)
    if not isinstance(run.shadow_attacks, NotRun):
        shadow = run.shadow_attacks
        records = shadow.members + shadow.non_members
        yield Measured("LiRA, AUC", records, shadow.lira.auc)
    if not isinstance(run.explanation_attacks, NotRun):
        explained = run.explanation_attacks
        records = explained.fitted + explained.members + explained.non_members
        for name in ("attention", "attributions"):
            auc = getattr(explained, name).auc
            yield Measured(f"Membership by {name}, AUC", records, auc)
    if not isinstance(run.exposure, NotRun):
        secrets = run.exposure.levels[-1].secrets
        yield Measured("Exposure, bits", secrets, run.exposure.of_most_repeated)
    if not isinstance(run.inversion, NotRun):
        read = run.inversion
        records = read.fitted + read.documents
        for name in ("pooled", "attention", "attributions"):
            yield Measured(f"Reading texts by {name}, gain", records, getattr(read, name).top1_gain)


def half_width(value: Estimate, times: float) -> float | None:
    """Half of the interval on so many times the records."""
    if value.low is None or value.high is None:
        return None
    return (value.high - value.low) / 2 / sqrt(times)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """For each run the widths of its intervals now, at twice and at four times the time."""
    yield Text(
        "Most of the time goes into passes through the model, so twice the time buys twice the "
        "records, as far as there are so many, and an interval falls with the square root of "
        "their number. A larger --budget-minutes, or --depth thorough, takes more of them."
    )
    for run in runs:
        lines = tuple(_line(each) for each in measured(run))
        if lines:
            yield Heading(run.name)
            yield Items(lines)
    yield How(
        "results[]",
        "Half of the interval of each figure, divided by the square root of 2 and of 4: "
        "what is expected, and not measured.",
    )


def _line(each: Measured) -> str:
    """No table: the widths are expected ones, and stand in no other format."""
    now, twice, four_times = (half_width(each.value, times) for times in (1, *TIMES))
    if now is None:
        return f"{each.words}: undefined"
    return (
        f"{each.words}: ± {now:.3f} from {each.records:,} records; ± {twice:.3f} at twice the "
        f"time, ± {four_times:.3f} at four times"
    )


CHAPTER = Chapter(name="more_time", place=148, title="What more time would buy", body=body)
