"""What a finding is, and the sentences that all measures share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attnpriv.estimates import SIGNIFICANT, Control

if TYPE_CHECKING:
    from attnpriv.audit.lift import Lift

Level = Literal["good", "info", "warn", "bad"]
State = Literal["measured", "invalid", "not run"]
SMALL = 1.05  # a lift below it is told, but is nothing to look at

NO_PERSONAL_DATA = "no personal data was found in these records"
OTHER_RECORDS = "Audit records that hold personal data, and check what the detector cannot see."
NO_ACTION = "No action from this result alone."
TRAINING_DATA = "Audit with the data that the model was trained on."
MORE_RECORDS = "Audit more records before you draw a conclusion."
TOO_FEW = "There are too few records here to notice even twice the usual attention."
SLIGHTLY = f", but by less than {SMALL - 1:.0%}"


@dataclass(frozen=True)
class Finding:
    """A finding for a reader without statistics.

    Attributes:
        level: how grave it is.
        title: the verdict, in one line.
        text: what was measured.
        measure: the name of its chapter.
        action: what to do about it.
        state: whether the figures behind it count.
    """

    level: Level
    title: str
    text: str
    measure: str
    action: str
    state: State = "measured"


def invalid(measure: str, name: str, *controls: Control) -> Finding:
    """A measure whose controls did not do as they must: its figures say nothing."""
    failed = "; ".join(control.expected for control in controls if not control.passed)
    return Finding(
        "warn",
        f"{name} INVALID",
        f"A control failed, so the figures say nothing, for or against. The control: {failed}.",
        measure,
        "Audit again with more records. If the control fails again, report a defect.",
        "invalid",
    )


def not_run(measure: str, name: str, reason: str, action: str) -> Finding:
    """A measure that was not run, and why."""
    return Finding("info", f"{name} not run", f"{capitalised(reason)}.", measure, action, "not run")


def capitalised(text: str) -> str:
    """The text with its first letter a capital; the others stay."""
    return text[:1].upper() + text[1:]


def above_chance(lift: Lift) -> bool:
    """Whether a lift is above 1 and its null does not give as much."""
    return (lift.lift.value or 0.0) > 1 and is_significant(lift.p_value)


def stands_out(lift: Lift) -> bool:
    """Whether it is above 1 beyond chance, after correction for all that were looked at."""
    return (lift.lift.value or 0.0) > 1 and is_significant(lift.p_adjusted)


def is_significant(p_value: float | None) -> bool:
    """Whether chance alone gives as much in less than one audit of twenty."""
    return p_value is not None and p_value < SIGNIFICANT


def small(*lifts: Lift) -> bool:
    """Whether all the intervals lie below a lift that anybody would act on."""
    return all((lift.lift.high or 0.0) < SMALL for lift in lifts)
