"""What a server's answers give away, beside what the run folder gives away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.leaks import Attack, Leak
from attnpriv.report.blocks import UNCOVERED, Block, Heading, How, Row, Table, Text
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.findings import Finding, Level, not_run
from attnpriv.report.formats import interval
from attnpriv.verdicts import MEANINGS, Verdict

if TYPE_CHECKING:
    from attnpriv.audit.leakage.served import ServedResult
    from attnpriv.audit.measures import AuditResult

NAME = "Attacks through the server"
WORDS: dict[Attack, str] = {
    "membership": "Membership by one threshold",
    "lira": "LiRA",
    "lira_offline": "LiRA, offline",
    "rmia": "RMIA",
    "rmia_offline": "RMIA, offline",
    "attention": "Membership by attention",
    "attributions": "Membership by attributions",
    "together": "Membership by both and the loss",
    "exposure": "Exposure of planted secrets",
    "hidden_words": "Reading words of texts",
    "attributes": "Guessing types of personal data",
}
OF_TEXTS: tuple[Attack, ...] = ("hidden_words", "attributes")  # and not of the training data
ASK_IT = "Audit the server with attnpriv-client audit --out, and give that file as --answers."
AREA, BITS = "AUC", "exposure, in bits"
FIRST_GUESSES, RIGHT_GUESSES = "gain among the first guesses", "largest gain in right guesses"


@dataclass(frozen=True)
class Given:
    """What an attack on the run folder found.

    Attributes:
        figure: what its value is.
        value: with its interval.
        verdict: on the attack.
    """

    figure: str
    value: Estimate
    verdict: Verdict


def of_folder(result: AuditResult, attack: Attack) -> Given | NotRun:
    """What the attack found that has the run folder, in the place of the answers."""
    match attack:
        case "membership":
            return _scored(result.membership)
        case "lira" | "lira_offline" | "rmia" | "rmia_offline":
            return _scored(_within(result.shadow_attacks, attack))
        case "attention" | "attributions" | "together":
            return _scored(_within(result.explanation_attacks, attack))
        case "exposure":
            exposure = result.exposure
            if isinstance(exposure, NotRun):
                return exposure
            return Given(BITS, exposure.of_most_repeated, exposure.judgement.verdict)
        case "hidden_words":
            inversion = result.inversion
            if isinstance(inversion, NotRun):
                return inversion
            gravest = getattr(inversion, inversion.gravest)
            return Given(FIRST_GUESSES, gravest.top1_gain, gravest.judgement.verdict)
        case "attributes":
            return _most_told(result)


def _within(measured: Any, name: str) -> Any:
    return measured if isinstance(measured, NotRun) else getattr(measured, name)


def _scored(attack: Any) -> Given | NotRun:
    if isinstance(attack, NotRun):
        return attack
    return Given(AREA, attack.auc, attack.judgement.verdict)


def _most_told(result: AuditResult) -> Given | NotRun:
    if isinstance(result.inversion, NotRun):
        return result.inversion
    attributes = result.inversion.attributes
    if isinstance(attributes, NotRun):
        return attributes
    most_told = max(attributes.guesses, key=lambda guess: guess.gain.value or 0.0)
    return Given(RIGHT_GUESSES, most_told.gain, attributes.judgement.verdict)


def finding(result: AuditResult) -> Finding:
    """Whether the answers give something away, under the policy that they were given under."""
    served = result.served
    if isinstance(served, NotRun):
        return not_run("served", NAME, served.not_run, ASK_IT)
    ran = [leak for leak in served.leaks if leak.verdict is not None]
    found = [WORDS[leak.attack] for leak in ran if leak.verdict in ("FOUND", "BEYOND THE CLAIM")]
    held = ", ".join(_released(served))
    text = f"Answers that held {held}: {len(ran)} attacks were run through the server"
    if not found:
        title, open_ones = f"{NAME} found nothing", _inconclusive(ran)
        level: Level = "warn" if open_ones else "info"
        rest = f"; inconclusive: {', '.join(open_ones)}" if open_ones else ""
        return Finding(level, title, f"{text}; none was found to leak{rest}.", "served", ALONE)
    training = [leak for leak in ran if leak.attack not in OF_TEXTS]
    of_training = any(leak.verdict in ("FOUND", "BEYOND THE CLAIM") for leak in training)
    return Finding(
        "bad" if of_training else "warn",
        f"{NAME} found something",
        f"{text}; found: {', '.join(found)}.",
        "served",
        "Reveal less to these callers, or train with a smaller ε: see the two columns.",
    )


ALONE = "No action from this result alone: other callers may be answered more."


def _inconclusive(ran: Sequence[Leak]) -> list[str]:
    return [WORDS[leak.attack] for leak in ran if leak.verdict == "INCONCLUSIVE"]


def _released(served: ServedResult) -> list[str]:
    return ["labels", *(name.replace("_", " ") for name in served.released)]


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """For each run one table: each attack with the run folder, and through the server."""
    yield Text(
        Markup(
            "The left column is what somebody can find out who has the run folder; the right one "
            "what a caller of the server could, from its answers under its policy. A policy can "
            "only make answers give away less than the folder does; what it withholds, it does "
            "not protect from those who have the folder. {}"
        ).format(UNCOVERED)
    )
    for run in runs:
        yield Heading(run.name)
        if isinstance(run.served, NotRun):
            yield Text(f"Not run: {run.served.not_run}.")
        else:
            yield from _of_run(run, run.served)
    yield How(
        "results[].served",
        "attnpriv-client audit, on other rows than the audit of the folder: the columns are no "
        "paired comparison. Verdicts on answers are held against ε and δ of the model card, which "
        "allow more than the mechanism does that the left column is held against.",
    )


def _of_run(run: AuditResult, served: ServedResult) -> Iterator[Block]:
    hidden = {None: "", True: "; personal data was redacted", False: "; nothing was redacted"}
    charged = ""
    if served.charged_epsilon:
        charged = (
            f" Answers were drawn, which was charged ε = {served.charged_epsilon:g} in all; they "
            "were used as they came."
        )
    yield Text(
        f"Version {served.version}; {served.rows} rows; answers held "
        f"{', '.join(_released(served))}{hidden[served.redacted]}.{charged}"
    )
    yield Text(Markup("<b>{}</b>").format(f"{served.verdict}: {MEANINGS[served.verdict]}"))
    yield Table(
        f"What {run.name} gives away, with its folder and through the server",
        ("Attack", "Figure", "With the run folder", "Verdict", "Through the server", "Verdict"),
        tuple(_row(run, leak) for leak in served.leaks),
    )


def _row(run: AuditResult, leak: Leak) -> Row:
    given = of_folder(run, leak.attack)
    ours = (NOT_RUN, "") if isinstance(given, NotRun) else (_shown(given.value), given.verdict)
    theirs: tuple[str, str] = (f"{NOT_RUN}: {leak.not_run}", "")
    if leak.value is not None and leak.verdict is not None:
        theirs = _shown(leak.value), leak.verdict
    figure = leak.figure or ("" if isinstance(given, NotRun) else given.figure)
    return WORDS[leak.attack], figure, *ours, *theirs


NOT_RUN = "not run"


def _shown(value: Estimate) -> str:
    return interval(value, 3)


CHAPTER = Chapter(
    name="served",
    place=136,
    title="Through the server",
    body=body,
    asks=Question(
        "What do the answers of a server give away, beside what the model does?",
        "Attacks from answers alone, through the wire and under the server's policy.",
        finding,
    ),
    figures=(Figure("served.verdict", "verdict on attacks through the server", "verdict"),),
)
