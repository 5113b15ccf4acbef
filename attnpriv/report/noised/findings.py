"""What the noised figures mean: the same questions and verdicts as of an audit without ε.

A lift, a share or an area is told from chance by its interval, which holds the noise and the choice
of the records; nulls and controls are drawn on exact figures, and so are not there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.report.chapters import QUESTIONS, membership, privacy
from attnpriv.report.findings import (
    MORE_RECORDS,
    SLIGHTLY,
    SMALL,
    Finding,
    not_run,
)
from attnpriv.report.formats import interval, share

WITHOUT = "Audit without --epsilon, and guard that report as you guard the records."
DROWNED = "the noise hides whether there is any personal data in these records"
UNREAD = "Read whether the answers rely on it, in an audit without --epsilon."
TWICE = 1.0  # an interval of a lift wider than this to either side would miss twice the usual


def noised_findings(result: Any) -> tuple[Finding, ...]:
    """One finding a question, in the order of the questions."""
    return tuple(_finding(name, result) for name in QUESTIONS)


def _finding(name: str, result: Any) -> Finding:
    if name in FINDINGS:
        return FINDINGS[name](result)
    title = QUESTIONS[name].question.rstrip("?")
    return not_run(name, f"“{title}?”", getattr(result, name).not_run, WITHOUT)


def _utility(result: Any) -> Finding:
    accuracy, most = result.utility["accuracy"], result.utility["most_frequent"]
    figure = f"{share(accuracy)} of the answers are right"
    usual = f"always naming the most frequent class would get {share(most)} right"
    if accuracy.low <= most.value:
        return Finding(
            "warn",
            "No better than naming the most frequent class",
            f"{figure}; {usual}.",
            "utility",
            "Do not use this model. The findings below say little about one that has learned more.",
        )
    return Finding(
        "info",
        "Better than naming the most frequent class",
        f"{figure}; {usual}.",
        "utility",
        "Decide whether that is enough for the purpose, class by class.",
    )


def _certificate(result: Any) -> Finding:
    clip = result.attention["certificate"]["logit_bound"]
    unseen = "The largest weight of these records is not shown under ε."
    if clip is None:
        return Finding(
            "warn",
            "Attention has no bound",
            f"The logits are not clipped: one token can take all the attention. {unseen}",
            "certificate",
            "Train with a clip where no single word may dominate an answer.",
        )
    return Finding(
        "good",
        "Attention has a proved bound",
        f"Its logits are clipped to ±{clip:g}. That limits how much one word weighs; it is not "
        f"differential privacy. {unseen} So it was not compared with its bound.",
        "certificate",
        "Keep the clip and the temperature whenever you train this model further.",
    )


def _attention(result: Any) -> Finding:
    name = "Attention to personal data"
    overall, matched = (result.attention[each]["lift"] for each in ("overall", "matched"))
    if overall.value is None or matched.value is None:
        return not_run("attention", name, DROWNED, MORE_RECORDS)
    figure = (
        f"Personal data gets {interval(overall, 3)} times the attention of an average word, and "
        f"{interval(matched, 3)} times that of like words nearby"
    )
    if _above(matched):
        slightly = matched.high < SMALL
        title = f"Attention favours personal data{SLIGHTLY if slightly else ''}"
        text = f"{figure}: more than chance explains."
        return Finding("info" if slightly else "warn", title, text, "attention", UNREAD)
    if not (_powered(overall) and _powered(matched)):
        title = "No difference in attention to personal data was found"
        if _above(overall):
            title = "Attention favours personal data, perhaps for its length and place"
        text = f"{figure}. The noise would hide even twice the usual attention."
        return Finding("warn", title, text, "attention", MORE_RECORDS)
    if _above(overall):
        title = "Attention favours personal data no more than like words"
        text = f"{figure}: its length and place explain the difference."
        return Finding("info", title, text, "attention", UNREAD)
    if overall.high < 1:
        title = "Attention does not favour personal data"
        text = f"{figure}, less than chance gives."
        return Finding("good", title, text, "attention", UNREAD)
    title = "No difference in attention to personal data was found"
    return Finding("info", title, f"{figure}, as chance alone gives.", "attention", UNREAD)


def _flow(result: Any) -> Finding:
    name = "Attention through layers and values"
    readings = {
        "followed through the layers": result.flow["rollout"]["matched"]["lift"],
        "weighted by what the values carry": result.flow["norm_weighted"]["matched"]["lift"],
    }
    if any(each.value is None for each in readings.values()):
        return not_run("flow", name, DROWNED, MORE_RECORDS)
    figure = "Over like words nearby, personal data gets " + ", and ".join(
        f"{interval(each, 3)} times the attention {how}" for how, each in readings.items()
    )
    above = [_above(each) for each in readings.values()]
    if any(above):
        slightly = all(each.high < SMALL for each in readings.values())
        how = "Both readings favour" if all(above) else "One of two readings favours"
        title = f"{how} personal data{SLIGHTLY if slightly else ''}"
        return Finding("info" if slightly else "warn", title, f"{figure}.", "flow", UNREAD)
    title = "Neither reading favours personal data"
    if not all(map(_powered, readings.values())):
        return Finding("warn", title, f"{figure}.", "flow", MORE_RECORDS)
    return Finding("info", title, f"{figure}.", "flow", UNREAD)


def _counterfactual(result: Any) -> Finding:
    overall = result.counterfactual["overall"]
    flips, null = overall["swap"]["flips"], overall["swap_null"]["flips"]
    excess = overall["excess"]
    if excess.value is None or flips.value is None or null.value is None:
        return not_run("counterfactual", "The swap test", DROWNED, MORE_RECORDS)
    text = (
        f"Swapping in another value of the same type changed {share(flips)} of the answers; "
        f"swapping as many other words changed {share(null)}. The values were invented ones."
    )
    if excess.low > 0:
        return Finding(
            "bad",
            "Answers depend on who the person is: personal data taken together",
            f"{text} That is the effect of the value alone.",
            "counterfactual",
            "Do not decide about people with this model. Mask these values in training and in use.",
        )
    return Finding(
        "info",
        "No sign that personal data moves answers more than other words",
        f"{text} The answers may still depend on it, and types were not tested one by one.",
        "counterfactual",
        "If no answer at all may change with the person, mask personal data before the model.",
    )


def _membership(result: Any) -> Finding:
    test = result.membership
    if isinstance(test, NotRun):
        return not_run("membership", "Membership test", test.not_run, WITHOUT)
    return membership.judged(test["judgement"], test["auc"])


def _above(lift: Estimate) -> bool:
    return (lift.low or 0.0) > 1


def _powered(lift: Estimate) -> bool:
    return (lift.high or 0.0) - (lift.value or 0.0) < TWICE


FINDINGS: dict[str, Callable[[Any], Finding]] = {
    "privacy": privacy.finding,
    "utility": _utility,
    "certificate": _certificate,
    "attention": _attention,
    "flow": _flow,
    "counterfactual": _counterfactual,
    "membership": _membership,
}
