"""How far attention on personal data can be led by moves of the embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness import SCALES
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Box,
    Controls,
    Grid,
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
from attnpriv.report.findings import NO_ACTION, Finding, invalid, not_run
from attnpriv.report.formats import interval, number
from attnpriv.report.measured import measured_of
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.robustness.attention import AttentionAttackResult


def finding(result: AuditResult) -> Finding:
    """How far attention moves at the largest radius, and what bounds it."""
    attack = result.attention_attacks
    if isinstance(attack, NotRun):
        return not_run("attention_attacks", "Attacks on attention", attack.not_run, NO_ACTION)
    controls = [attack.positive, attack.null, *([attack.within] if attack.within else [])]
    if not attack.valid:
        return invalid("attention_attacks", "Attacks on attention", *controls)
    last, bound = attack.radii[-1], "Nothing bounds it."
    if attack.onto_bound is not None:
        most = round_up(attack.onto_bound, 2)
        bound = f"The clip allows at most {most} times, whatever is moved."
    return Finding(
        "info",
        "Attention on personal data can be led",
        f"At the largest radius it becomes {interval(last.onto, 3)} times or "
        f"{interval(last.off, 3)} times what it was, and the answer stays. {bound}",
        "attention_attacks",
        "Do not take attention for a proof of what an answer rests on.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """The factors at each radius, with the answer kept and turned, and the controls."""
    yield Text(
        Markup(
            "Each coordinate of each word’s embedding is moved by at most the radius, so as to "
            "lead attention onto personal data or off it, mean over layers, heads and words: "
            "either while the answer stays, so that the explanation misleads, or while it is "
            "turned. Factors are of the attention before. What was found is the least that a "
            "stronger attack would find. {}"
        ).format(UNCOVERED)
    )
    attacks, reasons = measured_of(runs, "attention_attacks")
    yield from reasons
    if attacks:
        yield from _of_attacks(attacks)


def _of_attacks(attacks: Sequence[tuple[str, AttentionAttackResult]]) -> Iterator[Block]:
    yield Table(
        "Attention on personal data, as a multiple of what it was",
        (
            "Model",
            "Radius, deviations",
            "Onto, answer kept",
            "Off, answer kept",
            "Answers turned",
            "Onto, turned",
            "Off, turned",
            "The clip allows",
        ),
        tuple(row for each in attacks for row in _rows(*each)),
    )
    yield Grid(tuple(Box(tuple(_controls(*each))) for each in attacks))
    yield How(
        "results[].attention_attacks",
        "AutoPGD (Croce and Hein 2020) on the attention, after Ghorbani et al. 2019. Factors are "
        "ratios of sums over records; intervals: bootstrap over records. Seed "
        f"{attacks[0][1].seed}.",
    )


def _rows(name: str, attack: AttentionAttackResult) -> Iterator[Row]:
    bound = "no bound" if attack.onto_bound is None else round_up(attack.onto_bound, 2)
    for at in attack.radii:
        yield (
            name,
            f"{at.scale:g}",
            est(at.onto, 3),
            est(at.off, 3),
            part(at.turned),
            est(at.turned_onto, 3),
            est(at.turned_off, 3),
            bound,
        )


def _controls(name: str, attack: AttentionAttackResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(attack.valid)
    bound = () if attack.within is None else (("Bound", attack.within),)
    yield Controls((*both(attack.positive, attack.null), *bound))
    yield Text(
        f"{attack.documents} of {attack.sampled_from} records with personal data. Attention on it "
        f"before: {number(attack.mass)}.",
        "note",
    )


def _figures() -> Iterator[Figure]:
    for scale in SCALES:
        for name, words in (("onto", "onto"), ("off", "off")):
            yield Figure(
                f"attention_attacks.radii[{scale}].{name}",
                f"attention led {words} personal data at {scale:g} sd, as a factor",
                digits=3,
                higher_is_worse=name == "onto",
                comparable=True,
            )
    yield Figure(
        "attention_attacks.onto_bound",
        "the factor that the clip allows",
        kind="guarantee",
        higher_is_worse=True,
    )


CHAPTER = Chapter(
    name="attention_attacks",
    place=141,
    title="Attention under attack",
    body=body,
    asks=Question(
        "How easily is the explanation misled?",
        "Small moves of the words' embeddings that lead attention onto personal data or off it.",
        finding,
    ),
    figures=tuple(_figures()),
)
