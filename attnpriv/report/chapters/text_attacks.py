"""Accuracy under edits of the texts themselves, beside what is proved where something is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness import TEXT_EDITS
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Box,
    Controls,
    Grid,
    How,
    Plot,
    Row,
    Table,
    Text,
    both,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import as_svg, canvas, errors, series_style, short
from attnpriv.report.findings import NO_ACTION, Finding, invalid, not_run
from attnpriv.report.formats import number, share
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.measures import AuditResult
    from attnpriv.audit.robustness.text import TextAttackResult
    from attnpriv.estimates import Estimate


def finding(result: AuditResult) -> Finding:
    """How far accuracy falls after the most edits."""
    attack = result.text_attacks
    if isinstance(attack, NotRun):
        return not_run("text_attacks", "Attacks on texts", attack.not_run, NO_ACTION)
    controls = [attack.positive, attack.null, *([attack.within] if attack.within else [])]
    if not attack.valid:
        return invalid("text_attacks", "Attacks on texts", *controls)
    first, *_, last = attack.curve
    return Finding(
        "info",
        "Accuracy under edits of the text",
        f"{share(attack.clean)} without edits, {share(first.strongest)} after one edit of a word, "
        f"{share(last.strongest)} after {last.edits}. Other edits may lower it further: this is an "
        "upper limit, not a guarantee.",
        "text_attacks",
        "Where writers profit from a wrong answer, do not let the model decide alone.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Accuracy by edits of words and of tokens, and each kind of edit by itself."""
    yield Text(
        Markup(
            "Words are misspelt, split, joined, replaced by neighbours or by letters that look "
            "alike, and common words are added, so as to change the answer. The attacker sees the "
            "model’s confidence in any text. “Strongest” counts a record as broken by the search "
            "that needed the fewest edits. These are upper limits, and nobody has checked that "
            "edited texts still mean the same. No edited text is kept. {}"
        ).format(UNCOVERED)
    )
    attacks, reasons = measured_of(runs, "text_attacks")
    yield from reasons
    if attacks:
        yield from _of_attacks(attacks)


def _of_attacks(attacks: Sequence[tuple[str, TextAttackResult]]) -> Iterator[Block]:
    yield Plot(
        _curves(attacks),
        "Plot: accuracy under edits of the text",
        "Accuracy with 95 % intervals. On the right an edit is a token that is substituted, "
        "inserted or deleted; a dotted line is what is proved, which no attack can cross.",
    )
    yield Table(
        "Accuracy by the number of edited words",
        ("Model", "Records", "Edits", "Greedy", "Strongest", "Greedy: texts tried", "Beam"),
        tuple(row for each in attacks for row in _rows(*each)),
    )
    yield Table(
        "Accuracy by the number of edited tokens",
        ("Model", "Edits", "Under attack", "Proved"),
        tuple(row for each in attacks for row in _token_rows(*each)),
    )
    yield Table(
        "Accuracy under one kind of edit",
        ("Model", "Kind", "After one edit", f"After {TEXT_EDITS[-1]} edits", "Texts tried"),
        tuple(row for each in attacks for row in _family_rows(*each)),
    )
    yield Grid(tuple(Box(tuple(_controls(*each))) for each in attacks))
    yield How(
        "results[].text_attacks",
        "Words are ranked by leaving them out (Jin et al. 2020), then edited greedily and with a "
        "beam (Ebrahimi et al. 2018). Texts tried: how many the model answered for one record that "
        f"it answers rightly. Intervals: Wilson. Seed {attacks[0][1].seed}.",
    )


def _rows(name: str, attack: TextAttackResult) -> Iterator[Row]:
    records = f"{attack.documents} of {attack.sampled_from}"
    queries = number(attack.greedy_queries, 0), number(attack.beam_queries, 0)
    yield name, records, "0", part(attack.clean), part(attack.clean), *queries
    for at in attack.curve:
        yield name, "", str(at.edits), part(at.greedy), part(at.strongest), "", ""


def _token_rows(name: str, attack: TextAttackResult) -> Iterator[Row]:
    for at in attack.tokens:
        yield name, str(at.edits), part(at.accuracy), part(at.certified) if at.certified else "none"


def _family_rows(name: str, attack: TextAttackResult) -> Iterator[Row]:
    for each in attack.families:
        yield name, each.name, part(each.one), part(each.most), number(each.queries, 0)


def _controls(name: str, attack: TextAttackResult) -> Iterator[Block]:
    yield Text(name, "name")
    yield from validity(attack.valid)
    proof = () if attack.within is None else (("Proof", attack.within),)
    yield Controls((*both(attack.positive, attack.null), *proof))


def _curves(attacks: Sequence[tuple[str, TextAttackResult]]) -> Markup:
    """Accuracy against edits of words, and against edits of tokens beside what is proved."""
    with canvas(7.4, 3.9) as (figure, axes):
        axes.remove()
        words, tokens = figure.subplots(1, 2, sharey=True)
        for series, each in enumerate(attacks):
            _draw(words, tokens, series, *each)
        words.set(ylim=(0, 1.02), xlabel="edited words", ylabel="accuracy")
        tokens.set_xlabel("edited tokens")
        columns = 1 if len(attacks) == 1 else 2
        figure.legend(*words.get_legend_handles_labels(), loc="outside upper left", ncols=columns)
        falls = [_fall(*each) for each in attacks]
        return as_svg(figure, "text_attacks", "Accuracy under edits", falls)


def _draw(words: Axes, tokens: Axes, series: int, name: str, attack: TextAttackResult) -> None:
    by_words = [attack.clean, *(at.strongest for at in attack.curve)]
    by_tokens = [attack.clean, *(at.accuracy for at in attack.tokens)]
    style = series_style(series)
    for axes, at, estimates in (
        (words, [0, *(each.edits for each in attack.curve)], by_words),
        (tokens, [0, *(each.edits for each in attack.tokens)], by_tokens),
    ):
        axes.errorbar(
            at, _values(estimates), yerr=errors(estimates), capsize=2.5, label=short(name), **style
        )
        axes.set_xticks(at)
    proved = [at.certified for at in attack.tokens if at.certified]
    if proved:
        at = [0, *(each.edits for each in attack.tokens)]
        tokens.plot(at, _values([attack.clean, *proved]), **{**style, "linestyle": ":"})


def _values(estimates: Sequence[Estimate]) -> list[float]:
    return [estimate.value or 0.0 for estimate in estimates]


def _fall(name: str, attack: TextAttackResult) -> str:
    clean, last = attack.clean.value, attack.curve[-1].strongest.value
    if clean is None or last is None:
        return name
    return f"{name}: accuracy from {clean:.2f} to {last:.2f}"


def _figures() -> Iterator[Figure]:
    for edits in TEXT_EDITS:
        yield Figure(
            f"text_attacks.curve[{edits}].strongest",
            f"accuracy after {edits} edited {'word' if edits == 1 else 'words'}",
            higher_is_worse=False,
            main=edits == 1,
            comparable=True,
        )


CHAPTER = Chapter(
    name="text_attacks",
    place=142,
    title="Accuracy under edits of the text",
    body=body,
    asks=Question(
        "How easily do edits of a text mislead the model?",
        "Misspellings, lookalike letters, neighbouring and added words that seek a wrong answer.",
        finding,
    ),
    figures=tuple(_figures()),
)
