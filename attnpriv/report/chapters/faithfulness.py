"""Whether removing what attention ranks first moves the answer more than removing any words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.estimates import Estimate
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    Details,
    Heading,
    How,
    Plot,
    Table,
    Text,
    Words,
    both,
    est,
    validity,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import DASHES, SERIES, SOFT, as_svg, canvas, errors, series_style
from attnpriv.report.findings import NO_ACTION, Finding, invalid, not_run
from attnpriv.report.formats import interval
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.faithfulness import FaithfulnessResult, RankingFaithfulness
    from attnpriv.audit.measures import AuditResult

RANDOM = "random"


def finding(result: AuditResult) -> Finding:
    """Whether attention names what the answer depends on."""
    faithfulness, name = result.faithfulness, "Faithfulness of attention"
    if isinstance(faithfulness, NotRun):
        return not_run("faithfulness", name, faithfulness.not_run, NO_ACTION)
    if not faithfulness.valid:
        return invalid("faithfulness", name, faithfulness.positive, faithfulness.null)
    by_name = {each.ranking: each for each in faithfulness.rankings}
    attention, gradients = by_name["attention"], by_name["integrated_gradients"]
    rank = faithfulness.rank_correlation
    text = (
        "Removing the words that attention ranks first lowers the answer's probability by "
        f"{_gain(attention)} more than removing random ones; for integrated gradients' ranking it "
        f"is {_gain(gradients)}. The two rank words with a correlation of {interval(rank.mean)}."
    )
    if (attention.comprehensiveness_gain.low or 0.0) > 0:
        return Finding(
            "info",
            "Attention names words that matter, more than chance does",
            text,
            "faithfulness",
            "Still present attention as attention, never as the reason for an answer.",
        )
    return Finding(
        "warn",
        "Attention names words that matter no better than chance",
        text,
        "faithfulness",
        "Do not present the attention of this model as an explanation.",
    )


def _gain(ranking: RankingFaithfulness) -> str:
    return interval(ranking.comprehensiveness_gain, 3)


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """What removing words does, ranking by ranking."""
    yield Text(
        Markup(
            "If a ranking names the words that matter, the answer's probability falls far without "
            "its first words (comprehensiveness) and stays with its first words alone "
            "(sufficiency). The line “random” is what any words do; “leave one out” ranks by true "
            "effects and is the best to hope for. {}"
        ).format(UNCOVERED)
    )
    measured, reasons = measured_of(runs, "faithfulness")
    yield from reasons
    for number, each in enumerate(measured):
        yield from _of_run(*each, number)
    if measured:
        yield _how(measured[0][1])


def _how(first: FaithfulnessResult) -> How:
    return How(
        "results[].faithfulness",
        "Comprehensiveness and sufficiency: DeYoung et al. 2020; words are masked out of attention "
        f"and pooling. Intervals: bootstrap over records, {first.resamples} resamples, seed "
        f"{first.seed}. Infidelity: Yeh et al. 2019, {first.experiments} random removals a record, "
        f"over that of scores of 0. Integrated gradients with {first.steps} points on each path, "
        "and more where they do not add up to within 1 %.",
    )


def _of_run(name: str, measured: FaithfulnessResult, number: int) -> Iterator[Block]:
    yield Heading(name)
    yield from validity(measured.valid)
    yield Plot(
        _curves(name, measured, number),
        f"Plot: comprehensiveness and sufficiency of {name}",
        "Fall of the predicted class’s probability when the words ranked first are removed (left) "
        f"or alone are left (right), {measured.documents} of {measured.sampled_from} records.",
    )
    shares = Table(
        f"Comprehensiveness and sufficiency of {name}",
        ("Ranking", "Measure", *(f"{p} %" for p in measured.percents), "Mean",
         "Better than random by"),
        tuple(row for each in measured.rankings for row in _rows(each)),
    )  # fmt: skip
    infidelity = Table(
        f"Infidelity of {name}: 0 predicts what removals do, 1 predicts nothing",
        ("Ranking", "Infidelity"),
        tuple((_name(each), est(each.infidelity, 3)) for each in measured.rankings),
    )
    yield Details(f"Figures of {name}", (shares, infidelity))
    yield Controls(both(measured.positive, measured.null))


def _rows(of: RankingFaithfulness) -> Iterator[tuple[Words, ...]]:
    for kind, curve, mean, gain in (
        ("comprehensiveness", of.comprehensiveness, of.comprehensiveness_aopc,
         of.comprehensiveness_gain),
        ("sufficiency", of.sufficiency, of.sufficiency_aopc, of.sufficiency_gain),
    ):  # fmt: skip
        yield (_name(of), kind, *(est(each, 3) for each in (*curve, mean, gain)))


def _name(ranking: RankingFaithfulness) -> str:
    return ranking.ranking.replace("_", " ")


def _curves(name: str, measured: FaithfulnessResult, number: int) -> Markup:
    """Comprehensiveness and sufficiency at each share of the words, one line a ranking."""
    panels = {
        "comprehensiveness: higher is better": [r.comprehensiveness for r in measured.rankings],
        "sufficiency: lower is better": [r.sufficiency for r in measured.rankings],
    }
    with canvas(7.2, 2.9, 1, 2) as (figure, pair):
        for axes, (title, curves) in zip(pair, panels.items(), strict=True):
            for i, (ranking, curve) in enumerate(zip(measured.rankings, curves, strict=True)):
                _draw_curve(axes, i, ranking, curve)
            axes.set_title(title)
            axes.set_xticks(range(len(measured.percents)), [f"{p} %" for p in measured.percents])
            axes.set_xlabel("words removed" if axes is pair[0] else "words left")
        pair[0].set_ylabel("fall of the probability")
        handles, names = pair[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=4)
        return as_svg(
            figure,
            f"removal{number}",
            f"Comprehensiveness and sufficiency of {name}",
            map(_in_words, measured.rankings),
        )


def _draw_curve(
    axes: Axes, series: int, ranking: RankingFaithfulness, curve: Sequence[Estimate]
) -> None:
    style = {**series_style(series), "linestyle": DASHES[series % SERIES]}
    if ranking.ranking == RANDOM:
        style |= {"color": SOFT}
    offsets = [x + 0.05 * (series - 1) for x in range(len(curve))]  # intervals stand side by side
    values = [each.value or 0.0 for each in curve]
    axes.errorbar(
        offsets, values, yerr=errors(curve), capsize=2, elinewidth=0.8, linewidth=1.3,
        label=_name(ranking), **style,
    )  # fmt: skip


def _in_words(ranking: RankingFaithfulness) -> str:
    means = ranking.comprehensiveness_aopc.value or 0.0, ranking.sufficiency_aopc.value or 0.0
    return (
        f"{_name(ranking)}: comprehensiveness {means[0]:.3f}, sufficiency {means[1]:.3f} on average"
    )


CHAPTER = Chapter(
    name="faithfulness",
    place=90,
    title="How far explanations can be trusted",
    body=body,
    asks=Question(
        "Does attention point at the words that matter?",
        "Removing the words that it ranks first, or all others, and watching the answer.",
        finding,
    ),
    figures=(
        Figure(
            "faithfulness.rank_correlation.mean",
            "rank correlation of attention and integrated gradients",
            main=True,
        ),
    ),
)
