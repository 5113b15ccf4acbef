"""What happens to an answer when personal data is swapped or hidden, beside other words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    Details,
    Heading,
    How,
    Plot,
    Row,
    Table,
    Text,
    both,
    est,
    part,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import Row as Line
from attnpriv.report.drawing import forest
from attnpriv.report.findings import OTHER_RECORDS, Finding, invalid, not_run
from attnpriv.report.formats import p_value, share

if TYPE_CHECKING:
    from attnpriv.audit.counterfactual import CounterfactualResult
    from attnpriv.audit.effects import EntityEffect
    from attnpriv.audit.measures import AuditResult

ALL = "all types"
SWAPS = (
    "Type", "Swapped", "Records", "Left out", "More change than other words", "p", "p, Holm",
    "Answers changed", "by other words", "Flagged",
)  # fmt: skip
EFFECTS = (
    "Type", "Intervention", "Fall of the probability", "Change, up or down", "Answers changed",
    "Jensen–Shannon, bits",
)  # fmt: skip


def finding(result: AuditResult) -> Finding:
    """Swapping personal data against swapping other words."""
    measured, name = result.counterfactual, "The swap test"
    overall = measured.overall
    if not overall.entities:
        like = "size" if measured.of_images else "length"
        reason = f"no personal data had a replacement of the same type and {like}"
        return not_run("counterfactual", name, reason, OTHER_RECORDS)
    if not measured.valid:
        return invalid("counterfactual", name, measured.positive, measured.null)
    null = "an equal area beside it" if measured.of_images else "as many other words"
    text = (
        f"Swapping in another value of the same type changed {share(overall.swap.flips)} of the "
        f"answers; swapping {null} changed {share(overall.swap_null.flips)} "
        f"({overall.entities} swaps)."
    )
    flagged = [each.entity_type for each in measured.types if each.flagged]
    if overall.flagged or flagged:
        which = ", ".join(flagged) or "personal data taken together"
        return Finding(
            "bad",
            f"Answers depend on who the person is: {which}",
            f"{text} That is the effect of the value alone.",
            "counterfactual",
            "Do not decide about people with this model. Mask these values in training and in use.",
        )
    return Finding(
        "info",
        "No sign that personal data moves answers more than other words",
        f"{text} The answers may still depend on it.",
        "counterfactual",
        "If no answer at all may change with the person, mask personal data before the model.",
    )


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """Every effect of each run, by type of personal data."""
    yield Text(
        Markup(
            "Each piece of personal data is replaced by another of its type and length, and in a "
            "second step hidden; everything else stays as it is. If the answer moves more than "
            "when ordinary words are replaced, it depends on who the person is. {}"
        ).format(UNCOVERED)
    )
    first = runs[0].counterfactual
    if first.of_images:
        yield Text(
            "In these images, what stands in a marked region is replaced by what stands in a "
            "region of the same type and size in another image, and in a second step by black. "
            "“Other words” are an area of that size without anything marked, replaced by the same "
            "area of another image: where images are empty beside their regions, it changes little."
        )
    for number, run in enumerate(runs):
        yield from _of_run(run.name, run.counterfactual, number)
    yield _how(first)


def _how(first: CounterfactualResult) -> How:
    return How(
        "results[].counterfactual",
        "More change than other words: change by swapping personal data less change by swapping as "
        "many tokens of other words in the same record; one-sided sign-flip test over records, "
        f"{first.permutations} draws, Holm-corrected over the types; intervals by bootstrap over "
        f"records, {first.resamples} resamples, seed {first.seed}. Left out: values without a "
        "fitting replacement, or in records without as much for the null.",
    )


def _of_run(name: str, measured: CounterfactualResult, number: int) -> Iterator[Block]:
    effects = [(ALL, measured.overall), *((each.entity_type, each) for each in measured.types)]
    yield Heading(name)
    yield from validity(measured.valid)
    yield Plot(
        _changes(name, effects, number),
        f"Plot: effect of swapping and masking on {name}",
        "Change of the predicted class’s probability, up or down, mean over swaps; "
        f"{measured.documents} records.",
    )
    yield Table(f"Swaps by type, {name}", SWAPS, tuple(_swaps(*each) for each in effects))
    rows = tuple(row for each in effects for row in _every(*each))
    yield Details(f"Every effect on {name}", (Table(f"Effects on {name}", EFFECTS, rows),))
    yield Controls(both(measured.positive, measured.null))


def _swaps(name: str, effect: EntityEffect) -> Row:
    return (
        name,
        str(effect.entities),
        str(effect.documents),
        str(effect.left_out),
        est(effect.excess, 3),
        p_value(effect.p_value),
        p_value(effect.p_adjusted),
        part(effect.swap.flips),
        part(effect.swap_null.flips),
        "YES" if effect.flagged else "no",
    )


def _every(name: str, effect: EntityEffect) -> Iterator[Row]:
    for words, each in (
        ("swapped", effect.swap),
        ("other words swapped", effect.swap_null),
        ("masked", effect.mask),
        ("other words masked", effect.mask_null),
    ):
        change = est(each.drop, 3), est(each.change, 3)
        yield (name, words, *change, part(each.flips), est(each.divergence, 3))


def _changes(name: str, effects: Sequence[tuple[str, EntityEffect]], number: int) -> Markup:
    """How far answers move, by type of personal data, beside other words."""
    rows = []
    for group, effect in effects:
        for series, (kind, change) in enumerate(
            (
                ("personal data swapped", effect.swap.change),
                ("other words swapped", effect.swap_null.change),
                ("personal data masked", effect.mask.change),
            )
        ):
            rows.append(Line(group, series, kind, change))
    label = "change of the predicted class's probability"
    title = f"Effect of swapping and masking personal data on {name}"
    return forest(f"swap{number}", title, rows, label)


OVERALL = "counterfactual.overall"
CHAPTER = Chapter(
    name="counterfactual",
    place=110,
    title="Another person, all else the same",
    body=body,
    asks=Question(
        "Does an answer change with the person?",
        "Swapping a value for another of its type, compared with swapping other words.",
        finding,
    ),
    figures=(
        Figure(
            f"{OVERALL}.swap.flips",
            "answers changed by swapping personal data",
            shown="share",
            higher_is_worse=True,
            main=True,
        ),
        Figure(
            f"{OVERALL}.swap_null.flips",
            "answers changed by swapping other words",
            shown="share",
            main=True,
        ),
        Figure(
            f"{OVERALL}.swap.change",
            "change by swapping personal data",
            digits=3,
            higher_is_worse=True,
            main=True,
            comparable=True,
        ),
        Figure(
            f"{OVERALL}.excess",
            "change by swapping, beyond other words",
            digits=3,
            higher_is_worse=True,
            main=True,
            comparable=True,
        ),
    ),
)
