"""What a finding is, and the questions that findings answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from attnpriv.estimates import Control

if TYPE_CHECKING:
    from attnpriv.audit.lift import Lift

Level = Literal["good", "info", "warn", "bad"]
State = Literal["measured", "invalid", "not run"]
SIGNIFICANT = 0.05
SMALL = 1.05  # a lift below it is told, but is nothing to look at


@dataclass(frozen=True)
class Finding:
    """A finding for a reader without statistics.

    Attributes:
        level: how grave it is.
        title: the verdict, in one line.
        text: what was measured.
        measure: a key of ``QUESTIONS``.
        action: what to do about it.
        state: whether the figures behind it count.
    """

    level: Level
    title: str
    text: str
    measure: str
    action: str
    state: State = "measured"


@dataclass(frozen=True)
class Question:
    """What a measure asks, how it does, and the section of the page that answers at length."""

    question: str
    method: str
    section: str


QUESTIONS = {
    "privacy": Question(
        "Is it bounded what the training gave away?",
        "Read from the model card: differential privacy of the training.",
        "privacy",
    ),
    "utility": Question(
        "How good are the answers?",
        "Predictions on held-out records against their true classes.",
        "utility",
    ),
    "certificate": Question(
        "Is there a proved limit to attention?",
        "The formula for clipped logits beside the largest weight found.",
        "certificate",
    ),
    "attention": Question(
        "Does attention dwell on personal data?",
        "Attention on personal data over that on an average word, and on like words nearby.",
        "attention",
    ),
    "flow": Question(
        "Does it, when values and layers count?",
        "Rollout through the layers, and weights times the length of the values they carry.",
        "attention",
    ),
    "attribution": Question(
        "Do the answers rest on personal data?",
        "Integrated gradients: how much each word moved the answer.",
        "attribution",
    ),
    "conductance": Question(
        "Which layers pass it on to the answer?",
        "Conductance of the answer through each layer's attention weights.",
        "attribution",
    ),
    "occlusion": Question(
        "Does a second method say the same?",
        "Leaving out one word at a time, compared with integrated gradients.",
        "attribution",
    ),
    "faithfulness": Question(
        "Does attention name what matters?",
        "Removing the words that it ranks first, or all others, and watching the answer.",
        "faithfulness",
    ),
    "sensitivity": Question(
        "Do the explanations hold still?",
        "Explaining again under noise too small to matter.",
        "faithfulness",
    ),
    "counterfactual": Question(
        "Does an answer change with the person?",
        "Swapping a value for another of its type, against swapping other words.",
        "counterfactual",
    ),
    "memorisation": Question(
        "Did the model memorise values seen in training?",
        "Swapping values of training records, against values never seen.",
        "memorisation",
    ),
    "membership": Question(
        "Can training records be recognised?",
        "A guess from the model's confidence in the true class.",
        "membership",
    ),
    "robustness": Question(
        "How easily is it misled?",
        "Small moves of the words' embeddings that seek a wrong answer.",
        "robustness",
    ),
}


def invalid(measure: str, name: str, *controls: Control) -> Finding:
    """A measure whose controls did not do as they must: its figures say nothing."""
    failed = "; ".join(control.expected for control in controls if not control.passed)
    return Finding(
        "warn",
        f"{name} INVALID",
        f"A control failed, so the figures say nothing, for or against. Expected of {failed}.",
        measure,
        "Audit again with more records; if the control fails again, report a defect.",
        "invalid",
    )


def not_run(measure: str, name: str, reason: str, action: str) -> Finding:
    """A measure that was not taken, and why."""
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
