"""How much of planted secrets a model gives away, by how often they were repeated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
    Block,
    Controls,
    Heading,
    How,
    Row,
    Table,
    Text,
    both,
    est,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.claims import Attack, attack_finding, in_place, placements
from attnpriv.report.findings import Finding, invalid, not_run
from attnpriv.report.formats import interval, number, p_value
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.exposure import ExposureLevel, ExposureResult
    from attnpriv.audit.measures import AuditResult

ATTACK = Attack(
    measure="exposure",
    name="Exposure of planted secrets",
    found="Planted secrets were remembered",
    nothing="No planted secret was remembered",
    harm="Expect that records which stand in the training data as often are remembered, too. Train "
    "with an ε, or remove copies.",
    rest="No action from this result alone: only ε bounds what a model remembers.",
)
PLANT_THEM = "Plant secrets with attnpriv data plant, and train and audit a model on that data."


def finding(result: AuditResult) -> Finding:
    """Whether the model remembers planted secrets."""
    measured, name = result.exposure, "Exposure of planted secrets"
    if isinstance(measured, NotRun):
        return not_run("exposure", name, measured.not_run, PLANT_THEM)
    if not measured.valid:
        return invalid("exposure", name, measured.positive, measured.null)
    text = (
        f"Secrets that were repeated {measured.levels[-1].repetitions} times have an exposure of "
        f"{interval(measured.of_most_repeated)} bits, where chance gives "
        f"{number(measured.by_chance)} and {number(measured.largest)} can be seen."
    )
    return attack_finding(ATTACK, measured.judgement, text)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """A table of exposure by repetitions for each run."""
    yield Text(
        "Made-up secrets were planted in the training data, each with a random class. Each is "
        "ranked among others that were drawn like it, by the model’s confidence in that class. An "
        "exposure of b bits says that the model puts the secret among the first 1 of 2ᵇ guesses. A "
        "classifier does not generate: nobody reads a secret out of it who does not guess it "
        "first. Real secrets have other words, and may be easier or harder to remember."
    )
    for run in runs:
        yield Heading(run.name)
        if isinstance(run.exposure, NotRun):
            yield Text(f"Not run: {run.exposure.not_run}.")
        else:
            yield from _of_run(run.name, run.exposure)
    yield How(
        "results[].exposure",
        "Carlini et al. 2019, with ranks among a sample of candidates. p: ranks drawn by chance, "
        "Holm’s correction for all numbers of repetitions; intervals by bootstrap over secrets. "
        "What ε allows of k repetitions is that of groups of k records.",
    )


def _of_run(name: str, measured: ExposureResult) -> Iterator[Block]:
    yield from validity(measured.valid)
    yield Table(
        f"Exposure of planted secrets in {name}",
        ("Repetitions", "Secrets", "Exposure in bits", "Allowed by ε", "Ranked first", "p"),
        tuple(map(_row, measured.levels)),
    )
    yield Text(
        f"By chance {number(measured.by_chance)} bits; at most {number(measured.largest)} with "
        f"{measured.candidates} candidates. {measured.permutations} draws, {measured.resamples} "
        f"resamples, seed {measured.seed}."
    )
    if measured.valid:
        yield Text(Markup("<b>{}</b>").format(measured.judgement.verdict))
    yield in_place([placements(measured.judgement)])
    yield Controls(both(measured.positive, measured.null))


def _row(level: ExposureLevel) -> Row:
    return (
        str(level.repetitions),
        str(level.secrets),
        est(level.exposure),
        "nothing claimed" if level.allowed is None else round_up(level.allowed, 2),
        str(level.ranked_first),
        p_value(level.p_adjusted),
    )


CHAPTER = Chapter(
    name="exposure",
    place=125,
    title="Planted secrets",
    body=body,
    asks=Question(
        "Does the model remember secrets that were planted in its training data?",
        "Ranks of planted secrets among others that were drawn like them.",
        finding,
    ),
    figures=(
        Figure(
            "exposure.of_most_repeated",
            "exposure of the secrets repeated most often, in bits",
            higher_is_worse=True,
        ),
        Figure("exposure.judgement.verdict", "verdict on planted secrets", "verdict"),
    ),
)
