"""The page of an audit under ε: the verdicts, every noised figure, and what is not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv import __version__
from attnpriv.report.blocks import Block, Details, How, Items, Row, Table, Terms, Text
from attnpriv.report.chapters import QUESTIONS
from attnpriv.report.comparing import words_of
from attnpriv.report.formats import UNDEFINED, interval, number
from attnpriv.report.gates import Outcome
from attnpriv.report.html import environment, merged
from attnpriv.report.noised.document import NoisedReport, NoisedResult, figure_of
from attnpriv.report.summary import headline, run_verdict

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison

SECTIONS = {
    "verdict": "Verdict",
    "noise": "What ε covers here",
    "meaning": "What it means, and what to do",
    "figures": "Figures",
    "left-out": "What was left out",
    "limits": "What this report does not cover",
    "method": "Method and provenance",
    "signature": "Signature",
}
WORDS = {"utility.most_frequent": "share of the most frequent class"}
LIMITS = (
    "ε covers what these figures tell of the audited records. It does not cover what the model "
    "itself tells of its training records, nor other reports on the same records: their ε add up.",
    "The unit is one record. Somebody with ten records has ten times the loss.",
    "Which rows of a file are audited, how many there are and which the model was trained on count "
    "as public.",
    "An attack that fails proves nothing. Only the privacy card states a guarantee, and only for "
    "the training data.",
    "Attention and rollout describe a model; they are not causes, and attention is not an "
    "explanation.",
    "Several intervals are not corrected for each other: of many findings, a few may be chance.",
    "How long the audit took is not covered.",
)


def render_noised(report: NoisedReport, outcomes: Sequence[Outcome] = ()) -> str:
    """The page.

    Args:
        report: what was released, and what it means.
        outcomes: of the gates, where some were checked.
    """
    pages, results = environment(), report.results
    names = [result.name for result in results]
    said = [run.findings for run in report.findings]
    answers = dict(zip(QUESTIONS, zip(*said, strict=True), strict=True))
    bodies = {
        "noise": _noise(report),
        "figures": _figures(report),
        "left-out": _left_out(report),
        "limits": iter([Items(LIMITS)]),
        "method": _method(report),
    }
    flag = Markup('<span class="flag">noised: ε = {:g}, δ = {:.2g}</span>')
    return pages.get_template("page.html").render(
        runs=results,
        sections=SECTIONS,
        bodies=bodies,
        style=Markup(pages.get_template("report.css").render()),
        version=__version__,
        outcomes=outcomes,
        questions=QUESTIONS,
        answers=answers,
        meanings={key: merged(each, names) for key, each in answers.items()},
        verdicts=[run_verdict(each) for each in said],
        headline=headline(report),
        uncovered=flag.format(report.noise.epsilon, report.noise.delta),
    )


def _noise(report: NoisedReport) -> Iterator[Block]:
    noise = report.noise
    yield Text(
        "Every figure here had noise added before it was written. Whoever reads this page learns "
        f"about any one record no more than ε = {noise.epsilon:g} at δ = {noise.delta:.2g} allows."
    )
    yield Terms(
        (
            ("ε, δ", f"{noise.epsilon:g}, {noise.delta:.2g}, for all figures of all models here"),
            ("told apart no better", noise.relation),
            ("noise", f"{noise.mechanism}, by OpenDP, from the operating system’s random numbers"),
            ("released into this folder", _so_far(report)),
        )
    )


def _so_far(report: NoisedReport) -> str:
    noise = report.noise
    if noise.audits == 1:
        return "this audit alone"
    return (
        f"{noise.audits} audits, which together have cost ε = {noise.epsilon_of_all:g} at "
        f"δ = {noise.delta_of_all:.2g} where they are on the same records"
    )


def _figures(report: NoisedReport) -> Iterator[Block]:
    yield Text(
        "Intervals are 95 %, and hold both the noise and the choice of the records. ± is the "
        "standard deviation of the noise alone."
    )
    paths = dict.fromkeys(path for each in report.deviations for path in each)
    runs = list(zip(report.results, report.deviations, strict=True))
    columns: tuple[str, ...] = ("Figure", *(result.name for result in report.results))
    rows = ((_words(path), *(_cell(*run, path) for run in runs)) for path in paths)
    yield Table("Every figure", columns, tuple(rows))
    if report.comparisons:
        columns = ("Models", "Figure", "First less second")
        apart = (row for each in report.comparisons for row in _differences(each))
        yield Table("Differences between models", columns, tuple(apart))
    yield How("results[]", "The paths in the JSON file are those of an audit without ε.")


def _cell(result: NoisedResult, deviations: dict[str, float | None], path: str) -> str:
    if path not in deviations or deviations[path] is None:
        return UNDEFINED
    return f"{interval(figure_of(result, path), 3)} ± {number(deviations[path], 3)}"


def _differences(comparison: Comparison) -> Iterator[Row]:
    pair = f"{comparison.run} − {comparison.against}"
    for each in comparison.differences:
        yield pair, _words(each.measure), interval(each.difference, 3)


def _words(path: str) -> str:
    return WORDS.get(path) or words_of(path)


def _left_out(report: NoisedReport) -> Iterator[Block]:
    yield Text(
        "An audit without --epsilon shows these too, and is then as secret as the records are."
    )
    yield Terms(tuple((_words(path), reason) for path, reason in report.left_out.items()))


def _method(report: NoisedReport) -> Iterator[Block]:
    origin, noise = report.provenance, report.noise
    libraries = ", ".join(f"{name} {number}" for name, number in sorted(origin.libraries.items()))
    yield Text(
        "A figure is Σ x / Σ y over records. It is measured from a fixed centre, a record that "
        "would add more than its bound counts with a lower weight, and both sums are noised. "
        "Values in the swap test come from invented messages, never from another record."
    )
    yield Terms(
        (
            ("attnpriv", f"{origin.attnpriv}, code SHA-256 {origin.code_sha256}"),
            ("audited data", f"{origin.data}, {origin.data_rows} records"),
            ("libraries", f"Python {origin.python}, {libraries}"),
            *((name.replace("_", " "), str(value)) for name, value in report.options.items()),
        )
    )
    shares = Table(
        f"How the total was divided, in millionths of {noise.budget}",
        ("Sum", "Share"),
        tuple((name, str(share)) for name, share in noise.shares.items()),
    )
    yield Details("How the total was divided", (shares,))
