"""What an attack on the training data found, in the words that all such attacks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attnpriv.report.blocks import Block, Details, Items
from attnpriv.report.findings import Finding
from attnpriv.rounding import round_up
from attnpriv.verdicts import Claim, Judgement

SCOPE = (
    "The bound is about one record: each record’s own curve lies below it, and so does the mean "
    "over many. It does not bound what is learned about a group, such as all records of one "
    "person, nor what records that depend on each other say about one another. Intervals cover the "
    "choice of records, and not how one training differs from the next."
)
CORRECTED = (
    "These intervals are wider than 95 %: all of them together are wrong at either end in at most "
    "2.5 % of audits. A rate is held against guessing, and against the claim, at the highest false "
    "positive rate that its threshold may have."
)


@dataclass(frozen=True)
class Attack:
    """How an attack is spoken of.

    Attributes:
        measure: the name of its chapter.
        name: of the attack, as the beginning of a sentence.
        found: the title where it beats guessing.
        nothing: the title where it does not.
        harm: what to do where it beats guessing and nothing is claimed.
        rest: what to do where it does not.
    """

    measure: str
    name: str
    found: str
    nothing: str
    harm: str
    rest: str


def attack_finding(attack: Attack, judged: Judgement, text: str) -> Finding:
    """The finding on an attack that ran and whose controls passed.

    Claim: it is "bad" only if more was found than the model's claim allows, or if anything was and
    the model claims nothing.
    """
    if judged.claim is None:
        if judged.verdict == "FOUND":
            return Finding("bad", attack.found, text, attack.measure, attack.harm)
        return Finding("info", attack.nothing, text, attack.measure, attack.rest)
    text = f"{text} {allowance(judged.claim)}"
    epsilon = f"ε = {round_up(judged.claim.epsilon, 2)}"
    match judged.verdict:
        case "BEYOND THE CLAIM":
            title = f"{attack.found}, beyond what {epsilon} allows"
            action = (
                "Do not rely on this ε: the training, its accounting, the card or the split is "
                "wrong. Check the training with attnpriv verify-trainer."
            )
            return Finding("bad", title, f"{text} {_beyond(judged)}", attack.measure, action)
        case "INCONCLUSIVE":
            title = f"{attack.name}: too few records to hold it against {epsilon}"
            return Finding("warn", title, text, attack.measure, "Audit more records.")
        case "WITHIN THE CLAIM":
            title = f"{attack.found}, within what {epsilon} allows"
            action = "No action from this result alone. A smaller ε allows less."
            return Finding("info", title, text, attack.measure, action)
    return Finding("info", attack.nothing, text, attack.measure, attack.rest)


def allowance(claim: Claim) -> str:
    """The most that a claim allows, in a sentence."""
    return (
        f"ε = {round_up(claim.epsilon, 2)} at δ = {claim.delta:g} allows an AUC of at most "
        f"{round_up(claim.auc, 3)}."
    )


def placements(judged: Judgement) -> list[str]:
    """Each figure in its place, in a line."""
    return [
        f"{each.figure}: {each.low:.3f} to {each.high:.3f}, guessing up to {each.chance:.3f}"
        + ("" if each.allowed is None else f", allowed up to {round_up(each.allowed, 3)}")
        + f": {each.verdict}"
        for each in judged.figures
    ]


def in_place(lists: Iterable[Sequence[str]], *notes: Block) -> Details:
    """The figures of an attack in their places, folded away: a list for each of its forms."""
    shown = (*(Items(tuple(lines)) for lines in lists), *notes)
    return Details("Each figure in its place", shown, long=False)


def _beyond(judged: Judgement) -> str:
    worst = next(each for each in judged.figures if each.verdict == "BEYOND THE CLAIM")
    return (
        f"{worst.figure} is at least {worst.low:.3f}, where at most "
        f"{round_up(worst.allowed or 0.0, 3)} is allowed."
    )
