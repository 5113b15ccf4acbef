"""PASS, FAIL or INCONCLUSIVE: what the numbers of a report say about a gate.

A gate is a statement about the numbers behind the estimates, so it is judged by whole intervals:
PASS when all of the interval keeps the limit, FAIL when none of it does, else INCONCLUSIVE. So is
every number whose controls failed, or that too few records stand behind. The verdict on an attack
passes if the gate allows it, and is INCONCLUSIVE if it is so itself.

Claim: where an interval covers with 95 %, a limit that is not kept passes in at most 2.5 % of the
audits, and likewise fails where it is kept. A gate on every entry of a list passes wrongly no more
often, since each entry must pass, but fails wrongly more often the more entries there are. Not
covered: several gates are not corrected for each other.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from attnpriv import verdicts as attacks
from attnpriv.errors import InputError
from attnpriv.report.chapter import Kind
from attnpriv.report.chapters import FIGURES
from attnpriv.report.gates.config import AT_MOST, NEEDED_N, ONE_OF, Gate
from attnpriv.report.gates.lookup import Found, find
from attnpriv.report.printable import printable
from attnpriv.rounding import digits_up

Verdict = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Json = dict[str, Any]
SEVERITY: tuple[Verdict, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
# Of the counts that an object has, its numbers rest on the smallest.
COUNTS = (
    "n",
    "support",
    "documents",
    "documents_with_sensitive",
    "rank_documents",
    "members",
    "non_members",
    "member_documents",
    "held_out_documents",
    "right",
    "cases",
)
CARD = "card."
KINDS = {re.sub(r"\[.*?\]", "", path): figure.kind for path, figure in FIGURES.items()}
LOWER_BOUND = "epsilon_lower_bound"  # of whatever attack
CEILING = "epsilon_ceiling"
MATCHED = "matched"  # the null of like tokens nearby, whose controls have this name too
SHOWN = 3  # entries that a reason names


@dataclass(frozen=True)
class Outcome:
    """What came of a gate; ``run`` and ``reason`` are printable and in one line."""

    gate: Gate
    run: str
    verdict: Verdict
    reason: str

    @property
    def blocks(self) -> bool:
        """Whether CI must not go green: failed, or inconclusive where that was not allowed."""
        allowed = self.verdict == "INCONCLUSIVE" and self.gate.allow_inconclusive
        return self.verdict != "PASS" and not allowed


def check_gates(report: Json, gates: Sequence[Gate]) -> tuple[Outcome, ...]:
    """The outcome of each gate on a report, which is ``audit.json`` as read.

    Raises:
        InputError: a gate names a run, a comparison or a measure that the report does not have or
            that was not computed, or a number that has no interval.
    """
    return tuple(_check(report, gate) for gate in gates)


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0 where all gates let CI go green, 1 where one failed, else 2: one came to no verdict."""
    blocking = {outcome.verdict for outcome in outcomes if outcome.blocks}
    if not blocking:
        return 0
    return 1 if "FAIL" in blocking else 2


def _check(report: Json, gate: Gate) -> Outcome:
    try:
        run = _result(report, gate.run)
        if gate.against is None:
            found = find(run, gate.measure, gate.subset)
        else:
            other = _result(report, gate.against)
            comparison = _comparison(report, run["name"], other["name"])
            found = [
                _with_what_was_compared(each, run, other)
                for each in find(comparison, gate.measure, gate.subset)
            ]
        verdict, reason = _worst([(each.entry, *_judge(gate, each, run)) for each in found])
    except InputError as error:
        raise InputError(f"gate {gate.name!r}: {error}") from error
    return Outcome(gate, printable(run["name"]), verdict, printable(reason))


def _result(report: Json, name: str | None) -> Json:
    results = report["results"]
    names = [result["name"] for result in results]
    if name is None and len(results) > 1:
        raise InputError(f"the report has several runs: say run = one of {', '.join(names)}")
    chosen = [result for result in results if name in (None, result["name"])]
    if len(chosen) != 1:
        raise InputError(f"expected one run named {name!r} in the report, which has {names}")
    result: Json = chosen[0]
    return result


def _comparison(report: Json, run: str, against: str) -> Json:
    for comparison in report["comparisons"]:
        if (comparison["run"], comparison["against"]) == (run, against):
            if comparison["not_run"]:
                raise InputError(f"the comparison was not computed: {comparison['not_run']}")
            found: Json = comparison
            return found
    pairs = [f"{pair['run']} against {pair['against']}" for pair in report["comparisons"]]
    there = ", ".join(pairs) or "none"
    raise InputError(f"the report has no comparison of {run} against {against}, but {there}")


def _with_what_was_compared(found: Found, run: Json, other: Json) -> Found:
    """With the parts of both runs, whose controls and counts a comparison rests on."""
    path = found.passed[-1].get("measure", "attention.overall.lift")  # else it is the lift ratio
    part = path.partition(".")[0]
    both = [side[part] for side in (other, run) if isinstance(side.get(part), dict)]
    return Found(found.value, (*both, *found.passed), found.entry, path)


def _worst(judged: list[tuple[str, Verdict, str]]) -> tuple[Verdict, str]:
    """The gravest verdict, with the reasons for it."""
    if len(judged) == 1:
        return judged[0][1:]
    verdict = next(v for v in SEVERITY if any(v == each[1] for each in judged))
    reasons = [f"{entry}: {reason}" for entry, each, reason in judged if each == verdict]
    if verdict == "PASS":
        return verdict, f"all {len(judged)} entries, the first is {reasons[0]}"
    more = "; …" if len(reasons) > SHOWN else ""
    return verdict, f"{len(reasons)} of {len(judged)} entries: {'; '.join(reasons[:SHOWN])}{more}"


def _judge(gate: Gate, found: Found, run: Json) -> tuple[Verdict, str]:
    if (gate.operator == ONE_OF) != (found.value in get_args(attacks.Verdict)):
        fits = "a verdict" if gate.operator == ONE_OF else "a number"
        raise InputError(f"{gate.measure} is not {fits}, as the operator {gate.operator!r} needs")
    if gate.minimum_n is not None and (doubt := _too_few(gate, found)):
        return "INCONCLUSIVE", doubt
    if gate.operator == ONE_OF:
        return _judge_attack(gate, found)
    kind = _kind(found.path) if gate.against is None else "estimate"
    if kind == "guarantee":
        return _judge_stated(gate, found, run["card"])
    if type(found.value) is int:
        return _compare(gate, found.value, found.value, f"{found.value}", "the number")
    if doubt := _failed_control(found):
        return "INCONCLUSIVE", doubt
    if kind == "most found":
        return _judge_least(gate, found)
    if doubt := _too_few(gate, found):
        return "INCONCLUSIVE", doubt
    return _judge_estimate(gate, found)


def _judge_attack(gate: Gate, found: Found) -> tuple[Verdict, str]:
    """A verdict on an attack, which stands on the intervals already."""
    if doubt := _failed_control(found) or _too_few(gate, found):
        return "INCONCLUSIVE", doubt
    reason = f"{found.value}: {attacks.MEANINGS[found.value]}"
    if found.value in gate.verdicts:
        return "PASS", reason
    return "INCONCLUSIVE" if found.value == "INCONCLUSIVE" else "FAIL", reason


def _kind(path: str) -> Kind:
    return "most found" if path.endswith(f".{LOWER_BOUND}") else KINDS.get(path, "estimate")


def _judge_stated(gate: Gate, found: Found, card: Json) -> tuple[Verdict, str]:
    of_card = found.path.startswith(CARD)
    if found.value is None or (of_card and card.get("private") is not True):
        return "FAIL", "the model has no such guarantee"
    if not of_card and found.passed[-1].get("holds") is False:
        return "FAIL", "weights were measured that exceed their proved bound: a defect"
    number = _number(found.value)
    verdict, reason = _compare(gate, number, number, digits_up(number, 6), "the number")
    if verdict == "PASS" and of_card and card.get("warnings"):
        return "INCONCLUSIVE", f"{reason}, but the model card warns of it: read the card"
    return verdict, reason


def _judge_least(gate: Gate, found: Found) -> tuple[Verdict, str]:
    """The most that was found: a limit below it is broken, one above it never confirmed."""
    least = _number(found.value)
    verdict, reason = _compare(gate, least, math.inf, f"at least {least:.4g}", "the range")
    if verdict != "INCONCLUSIVE":
        return verdict, reason
    ceiling = found.passed[-1].get(CEILING)
    if ceiling is not None and ceiling < gate.threshold:
        return verdict, f"even a perfect attack with these guesses shows at most {ceiling:.4g}"
    return verdict, f"at least {least:.4g}: no more was found, which proves nothing"


def _judge_estimate(gate: Gate, found: Found) -> tuple[Verdict, str]:
    estimate = found.value
    if not isinstance(estimate, dict) or set(estimate) != {"value", "low", "high"}:
        raise InputError(f"{gate.measure} is no number with an interval in this report")
    if None in estimate.values():
        why = found.passed[-1].get("not_reported")
        return "INCONCLUSIVE", why or "undefined: no record says anything about it"
    value, low, high = (_number(estimate[name]) for name in ("value", "low", "high"))
    shown = f"{value:.4g} [{low:.4g}, {high:.4g}]"
    if low == high:
        return "INCONCLUSIVE", f"{shown}: records that do not differ leave the interval no width"
    return _compare(gate, low, high, shown, "the whole 95 % interval")


def _compare(gate: Gate, low: float, high: float, shown: str, what: str) -> tuple[Verdict, str]:
    limit = gate.threshold
    if gate.operator == AT_MOST:
        keeps, breaks, word = high <= limit, low > limit, "above"
    else:
        keeps, breaks, word = low >= limit, high < limit, "below"
    if keeps:
        return "PASS", f"{shown}: {what} is {gate.operator} {limit:g}"
    if breaks:
        return "FAIL", f"{shown}: {what} is {word} {limit:g}"
    return "INCONCLUSIVE", f"{shown}: the 95 % interval lies on both sides of {limit:g}"


def _failed_control(found: Found) -> str | None:
    """Which control of a measure failed, looked for in every object that it is part of."""
    matched = MATCHED in found.path.split(".")
    for part in found.passed:
        for name, value in part.items():
            failed = isinstance(value, dict) and value.get("passed") is False
            if failed and (matched or not name.startswith(MATCHED)):
                measured = _number(value["measured"])
                return f"a control failed ({value['expected']}; measured {measured:.4g})"
    return None


def _too_few(gate: Gate, found: Found) -> str | None:
    needed, records = gate.minimum_n or NEEDED_N, _records(found)
    if records is None:
        if gate.minimum_n is not None:
            raise InputError(f"the report gives no number of records for {gate.measure}")
        return None
    return f"{records} records, {needed} are needed" if records < needed else None


def _records(found: Found) -> int | None:
    """How many records a number rests on, by the innermost object that says so."""
    for part in reversed(found.passed):
        if counts := [int(part[name]) for name in COUNTS if type(part.get(name)) is int]:
            return min(counts)
    return None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"expected a number in the report, got {type(value).__name__}")
    return float(value)
