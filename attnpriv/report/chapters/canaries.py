"""What the coins of a run's canaries prove of its ε."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import Block, Controls, Heading, How, Row, Table, Text, both, validity
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.claims import in_place, placements
from attnpriv.report.findings import Finding, invalid, not_run
from attnpriv.rounding import round_down, round_up

if TYPE_CHECKING:
    from attnpriv.audit.leakage.canaries import CanariesResult, CanaryAttack
    from attnpriv.audit.measures import AuditResult

NAME = "The one-run audit with canaries"
PLANT_THEM = "Train with --canaries, and audit that run."
TRUST_NO_EPSILON = (
    "Do not rely on this ε: the training, its accounting or the card is wrong. Check the training "
    "with attnpriv verify-trainer."
)
MORE = "Train with more canaries, or with a larger ε in a copy that is not used."
TRAIN_PRIVATELY = "Train with an ε: without one, nothing bounds what records give away."
NO_ACTION = "No action from this result alone: a lower bound on ε is no guarantee."


def finding(result: AuditResult) -> Finding:
    """What is proved of ε, and whether that contradicts the claim."""
    measured = result.canaries
    if isinstance(measured, NotRun):
        return not_run("canaries", NAME, measured.not_run, PLANT_THEM)
    if not measured.valid:
        return invalid("canaries", NAME, measured.positive, measured.null)
    judged, text = measured.judgement, _text(measured)
    epsilon = "" if judged.claim is None else f"ε = {round_up(judged.claim.epsilon, 2)}"
    match judged.verdict:
        case "BEYOND THE CLAIM":
            title = f"Canaries show more than {epsilon} allows"
            return Finding("bad", title, text, "canaries", TRUST_NO_EPSILON)
        case "INCONCLUSIVE":
            title = f"Canaries: nothing can be concluded about {epsilon}"
            return Finding("warn", title, text, "canaries", MORE)
        case "FOUND":
            title = "The model shows which canaries it was trained on"
            return Finding("bad", title, text, "canaries", TRAIN_PRIVATELY)
        case "WITHIN THE CLAIM":
            title = f"Canaries show no more than {epsilon} allows"
            return Finding("info", title, text, "canaries", NO_ACTION)
    title = "The model does not show which canaries it was trained on"
    return Finding("info", title, text, "canaries", NO_ACTION)


def _text(measured: CanariesResult) -> str:
    first = measured.attacks[0]
    text = (
        f"Of {first.guesses} guesses about {first.canaries} canaries {first.correct} were right "
        f"({first.name}). With 95 % confidence ε is at least {round_down(measured.epsilon, 2)}, "
        f"where a perfect attacker could prove {round_down(measured.ceiling, 2)}."
    )
    if first.power is not None:
        text += f" Half the noise would be noticed with a chance of {_percent(first.power)}."
    return text


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """A table of attacks and bounds for each run; a line where none has canaries."""
    reasons = {run.canaries.not_run for run in runs if isinstance(run.canaries, NotRun)}
    if all(isinstance(run.canaries, NotRun) for run in runs):
        yield Text(f"Not run: {'; '.join(sorted(reasons))}.")
        return
    yield Text(
        "Made-up records were trained on by fair coins, and attacks guess the coins. Right guesses "
        "bound ε from below. The white-box attacker saw the noised sum of every step and knows all "
        "other records; the others ask the finished model. What a perfect attacker could prove "
        "with these guesses stands beside each bound, so that a low bound is not read as a small "
        "ε."
    )
    for run in runs:
        yield Heading(run.name)
        if isinstance(run.canaries, NotRun):
            yield Text(f"Not run: {run.canaries.not_run}.")
        else:
            yield from _of_run(run.name, run.canaries)
    yield How(
        "results[].canaries",
        "By (ε, δ): Steinke, Nasr and Jagielski 2023. By the curve: Mahloujifar, Melis and "
        "Chaudhuri 2024, for the curve of a Gaussian; the verdict takes that of the run’s own "
        "mechanism. How many guesses are made follows from the claim and the number of canaries, "
        "not from the scores. Texts are scored within their class.",
    )


def _of_run(name: str, measured: CanariesResult) -> Iterator[Block]:
    yield from validity(measured.valid)
    yield Table(
        f"Lower bounds on ε of {name} at δ = {measured.delta:g}, 95 % confidence, and the most "
        "that a perfect attacker could prove",
        ("Attack", "Canaries", "Guesses", "Right", "ε by (ε, δ)", "at most", "ε by the curve",
         "at most", "Half the noise noticed"),
        tuple(map(_row, measured.attacks)),
    )  # fmt: skip
    if measured.valid:
        yield Text(Markup("<b>{}</b>").format(measured.judgement.verdict))
    yield in_place([placements(measured.judgement)])
    yield Controls(both(measured.positive, measured.null))


def _row(attack: CanaryAttack) -> Row:
    return (
        attack.name,
        str(attack.canaries),
        str(attack.guesses),
        str(attack.correct),
        round_down(attack.epsilon, 2),
        round_down(attack.epsilon_ceiling, 2),
        round_down(attack.gaussian_epsilon, 2),
        round_down(attack.gaussian_epsilon_ceiling, 2),
        "nothing claimed" if attack.power is None else _percent(attack.power),
    )


def _percent(chance: float) -> str:
    return f"{100 * chance:.0f} %"


CHAPTER = Chapter(
    name="canaries",
    place=137,
    title="Canaries",
    body=body,
    asks=Question(
        "What do canaries prove of ε?",
        "Guesses which made-up records were trained on, and the lower bound on ε that follows.",
        finding,
    ),
    figures=(
        Figure("canaries.epsilon", "lower bound on ε by canaries", "most found"),
        Figure("canaries.judgement.verdict", "verdict on canaries", "verdict"),
    ),
)
