"""What of a text can be read out of what the model computes from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    Heading,
    How,
    Row,
    Table,
    Text,
    both,
    est,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.claims import in_place, placements
from attnpriv.report.findings import MORE_RECORDS, Finding, invalid, not_run
from attnpriv.report.formats import percent, share
from attnpriv.verdicts import beats_chance, gravity

if TYPE_CHECKING:
    from attnpriv.audit.leakage.attributes import AttributesResult
    from attnpriv.audit.leakage.guessing import Recovered
    from attnpriv.audit.leakage.inversion import Inversion, InversionResult
    from attnpriv.audit.measures import AuditResult

WORDS = {
    "pooled": "the pooled vector",
    "attention": "attention maps",
    "attributions": "attributions",
}
WORST = {"gradients": "the gradient of one record", "noised_gradients": "its noised gradient"}
GIVEN_OUT = ("attention", "attributions")  # by the server, as explanations


def finding(result: AuditResult) -> Finding:
    """Whether texts can be read out of what is computed from them.

    Claim: never "bad", since no model promises that they cannot; a point to look at where what is
    given out as an explanation shows them.
    """
    measured, name = result.inversion, "Reading texts out of vectors and maps"
    if isinstance(measured, NotRun):
        return not_run("inversion", name, measured.not_run, MORE_RECORDS)
    if not measured.valid:
        return invalid("inversion", name, measured.positive, measured.null)
    found = {key: getattr(measured, key) for key in WORDS}
    read = [key for key, each in found.items() if beats_chance(each.judgement.figures)]
    if not read:
        title = "No tokens could be read out of vectors, maps or attributions"
        text = "The guessers recovered no more tokens than without them; this proves nothing."
        return Finding("info", title, text, "inversion", "No action from this result alone.")
    shown = [key for key in read if key in GIVEN_OUT]
    text = " ".join(
        f"From {WORDS[key]} a guesser names {share(found[key].recovered.top10)} of the tokens "
        f"within ten guesses, and one that does not see them {share(found[key].guesser.top10)}."
        for key in read
    )
    text = f"{text} {_of_attributes(measured.attributes)}".strip()
    if not shown:
        title = "Texts can be read in part out of pooled vectors"
        action = "Guard stored vectors as you guard the texts."
        return Finding("info", title, text, "inversion", action)
    title = f"Texts can be read in part out of {' and '.join(WORDS[key] for key in shown)}"
    action = (
        "Whoever gets these explanations without the text learns words of it: serve explanations "
        "under a policy that computes them from the redacted text, and log none."
    )
    return Finding("warn", title, text, "inversion", action)


def _of_attributes(found: AttributesResult | NotRun) -> str:
    if isinstance(found, NotRun) or found.judgement.verdict != "FOUND":
        return ""
    best = max(found.guesses, key=lambda each: gravity(each.judgement))
    return (
        f"Whether a text holds {best.entity_type} can be guessed from {WORDS[best.source]} in "
        f"{share(best.accuracy)} of the texts, from the answer alone in {share(best.by_answer)}."
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """For each run a table of what is recovered, beside the guesser that sees nothing."""
    yield Text(
        Markup(
            "Somebody who sees numbers that a model computed from a text, and not the text, may "
            "read words out of them. A guesser learns from other texts how tokens look in these "
            "numbers. Beside it stands a guesser that sees none of them: how often tokens occur "
            "and, for maps and attributions, where they stand. A token of a pooled vector counts "
            "as named within ten guesses if fewer than ten tokens that the text does not hold are "
            "guessed before it. {}"
        ).format(UNCOVERED)
    )
    yield Text(
        "The ε of a model protects the records that it was trained on, and not the texts that it "
        "is asked about. Not covered: better guessers than a regression, and tokens that occur in "
        "none of the texts that the guesser learned from: nobody names them here, and others may."
    )
    yield Text(
        "The gradient of one record is the worst case, which nobody sees where a run is trained on "
        "one machine: it shows what somebody could read who is sent gradients, as in federated "
        "training. The noised one is clipped and noised like a step of the run in which this "
        "record is alone; runs without an ε have none."
    )
    for run in runs:
        yield Heading(run.name)
        if isinstance(run.inversion, NotRun):
            yield Text(f"Not run: {run.inversion.not_run}.")
        else:
            yield from _of_run(run.name, run.inversion)
    yield How(
        "results[].inversion",
        "Ridge regression to tokens: Song and Raghunathan 2020 for vectors of texts; place by "
        "place, on features in eight bins, for maps and attributions. Gradients: Melis et al. "
        "2019. Types of personal data: logistic regression. Intervals: bootstrap over texts, the "
        "same for both guessers; of right guesses: Clopper and Pearson.",
    )


def _of_run(name: str, measured: InversionResult) -> Iterator[Block]:
    yield from validity(measured.valid)
    if measured.valid:
        yield Text(Markup("<b>{}</b>").format(measured.judgement.verdict))
    yield Text(
        f"{measured.documents} held-out texts with {measured.tokens} tokens were attacked, "
        f"{measured.sensitive_tokens} of them in personal data, after the guessers had learned "
        f"from {measured.fitted} other texts. {percent(measured.known)} of the tokens occur "
        f"there. {measured.resamples} resamples, seed {measured.seed}."
    )
    words = WORDS | {key: name for key, name in WORST.items() if getattr(measured, key)}
    found: dict[str, Inversion] = {key: getattr(measured, key) for key in words}
    yield Text(
        "What is read of the gradient is "
        + {
            "word vectors": "which word vectors it moves: these are trained.",
            "head": "the pooled vector, which the gradient of the head shows: nothing else that "
            "tells tokens apart is read.",
        }[measured.gradients_of]
    )
    yield Table(
        f"Tokens recovered from what {name} computes",
        ("From", "First guess", "Within ten guesses", "Personal data, first guess",
         "Personal data, within ten"),
        tuple(row for key, each in found.items() for row in _rows(words[key], each)),
    )  # fmt: skip
    yield Table(
        f"What the numbers of {name} add",
        ("From", "First guess", "Within ten guesses", "Verdict"),
        tuple(
            (words[key], est(each.top1_gain, 3), est(each.top10_gain, 3), each.judgement.verdict)
            for key, each in found.items()
        ),
    )
    yield in_place(
        [f"{words[key]}, {line}" for line in placements(each.judgement)]
        for key, each in found.items()
    )
    yield Controls(both(measured.positive, measured.null))
    yield from _attributes(name, measured.attributes)


def _attributes(name: str, found: AttributesResult | NotRun) -> Iterator[Block]:
    """Guesses of what a text holds, beside guesses from the answer alone."""
    if isinstance(found, NotRun):
        yield Text(f"Types of personal data were not guessed: {found.not_run}.")
        return
    yield from validity(found.valid)
    yield Table(
        f"Does a text hold personal data of a type? Right guesses from what {name} computes",
        ("Type", "From", "Texts that hold it", "From the answer alone", "From the numbers", "Gain",
         "Verdict"),
        tuple(
            (each.entity_type, WORDS[each.source], percent(each.share), part(each.by_answer),
             part(each.accuracy), est(each.gain, 3), each.judgement.verdict)
            for each in found.guesses
        ),
    )  # fmt: skip
    yield in_place(
        [f"{each.entity_type}, {WORDS[each.source]}, {line}" for line in placements(each.judgement)]
        for each in found.guesses
    )
    yield Controls(both(found.positive, found.null, "types"))


def _rows(words: str, each: Inversion) -> Iterator[Row]:
    yield words, *_shares(each.recovered)
    yield f"without {words}", *_shares(each.guesser)


def _shares(found: Recovered) -> Row:
    return (
        part(found.top1),
        part(found.top10),
        part(found.sensitive_top1),
        part(found.sensitive_top10),
    )


CHAPTER = Chapter(
    name="inversion",
    place=139,
    title="Texts in vectors, maps and attributions",
    body=body,
    asks=Question(
        "Can a text be read out of what the model computes from it?",
        "Guessers of tokens, fitted to other texts, beside guessers that see nothing.",
        finding,
    ),
    figures=(
        Figure(
            "inversion.pooled.top10_gain", "tokens that pooled vectors give away", shown="share",
            higher_is_worse=True,
        ),
        Figure(
            "inversion.attention.top10_gain", "tokens that attention maps give away",
            shown="share", higher_is_worse=True,
        ),
        Figure(
            "inversion.attributions.top10_gain", "tokens that attributions give away",
            shown="share", higher_is_worse=True,
        ),
        Figure(
            "inversion.gradients.top10_gain", "tokens that a record's gradient gives away",
            shown="share", higher_is_worse=True,
        ),
        Figure("inversion.judgement.verdict", "verdict on reading texts", "verdict"),
    ),
)  # fmt: skip
