"""Findings on causes: what happens to an answer when personal data is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnpriv.audit.results import NotRun
from attnpriv.report.findings.attention import OTHER_RECORDS
from attnpriv.report.findings.base import Finding, invalid, not_run
from attnpriv.report.formats import interval, share

if TYPE_CHECKING:
    from attnpriv.audit.counterfactual import CounterfactualResult
    from attnpriv.audit.memorisation import MemorisationResult


def about_counterfactuals(result: CounterfactualResult) -> Finding:
    """Swapping personal data against swapping other words."""
    overall, name = result.overall, "The swap test"
    if not overall.entities:
        reason = "no personal data had a replacement of the same type and length"
        return not_run("counterfactual", name, reason, OTHER_RECORDS)
    if not result.valid:
        return invalid("counterfactual", name, result.positive, result.null)
    text = (
        f"Another value of the same type turned {share(overall.swap.flips)} of the answers; other "
        f"words, as many, turned {share(overall.swap_null.flips)} ({overall.entities} swaps)."
    )
    flagged = [each.entity_type for each in result.types if each.flagged]
    if overall.flagged or flagged:
        which = ", ".join(flagged) or "personal data taken together"
        return Finding(
            "bad",
            f"Answers depend on who the person is: {which}",
            f"{text} That is the effect of the value alone.",
            "counterfactual",
            "Do not decide about people with this model; mask these values in training and use.",
        )
    return Finding(
        "info",
        "Personal data moves answers no more than other words",
        f"{text} The answers may still read it.",
        "counterfactual",
        "If no answer at all may change with the person, mask personal data before the model.",
    )


def about_memorisation(result: MemorisationResult | NotRun) -> Finding:
    """Whether values seen in training matter more than values that were not."""
    name = "The memorisation test"
    if isinstance(result, NotRun):
        action = "Audit with the data that the model was trained on."
        return not_run("memorisation", name, result.not_run, action)
    if not result.valid:
        return invalid("memorisation", name, result.positive, result.null)
    text = (
        f"Swapping a value seen in training costs the true class {interval(result.difference)} "
        f"more log-odds than swapping one that was not ({result.member_entities} and "
        f"{result.held_out_entities} values)."
    )
    if result.flagged:
        return Finding(
            "bad",
            "Values seen in training were memorised",
            text,
            "memorisation",
            "Do not release; train again with a smaller ε, or with these values masked.",
        )
    return Finding(
        "info",
        "No memorised values were found",
        f"{text} This test sees only what changes the answer's class.",
        "memorisation",
        "Nothing by this alone: only ε bounds what a model remembers.",
    )
