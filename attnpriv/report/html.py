"""An audit as one HTML page: no script, no request, nothing outside the file.

It is read from the top by people, who get the verdict, what was tested, what it means and what that
does not cover; and from the bottom by specialists, who get every figure and where it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnpriv import __version__
from attnpriv.audit.results import Audit, NotRun
from attnpriv.report import formats, plots
from attnpriv.report.findings import QUESTIONS, Finding, findings
from attnpriv.report.gates import Outcome
from attnpriv.report.measures import MEASURES
from attnpriv.report.provenance import Provenance
from attnpriv.report.summary import headline, run_verdict
from attnpriv.rounding import round_up

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.examples import Example, Piece
    from attnpriv.audit.measures import AuditResult

SHADES = 6  # depths of colour in a token heatmap
SPECIAL = ("[CLS]", "[SEP]")
# One template a section, of the same name; what comes before "privacy" is for everyone.
SECTIONS = {
    "verdict": "Verdict",
    "tested": "What was tested",
    "meaning": "What it means, and what to do",
    "limits": "What this report does not cover",
    "privacy": "Privacy cards",
    "utility": "Answers on held-out records",
    "attention": "Attention on personal data",
    "certificate": "Proved bounds beside measured weights",
    "attribution": "What the answers rest on",
    "faithfulness": "How far explanations can be trusted",
    "counterfactual": "Another person, the same text",
    "memorisation": "Values seen in training",
    "membership": "Recognising training records",
    "robustness": "Accuracy under attack",
    "comparison": "One model against another",
    "examples": "Examples, word by word",
    "coverage": "Who says what is personal data",
    "method": "Method and provenance",
    "signature": "Signature",
}


def render_html(
    audit: Audit,
    include_text: bool,
    outcomes: Sequence[Outcome] = (),
    provenance: Provenance | None = None,
) -> str:
    """The page.

    Args:
        audit: what was measured.
        include_text: also show the words of the examples that are not marked as personal data.
        outcomes: of the gates, where some were checked.
        provenance: of the figures.
    """
    environment = _environment()
    results = audit.results
    said = [findings(result) for result in results]
    answers = dict(zip(QUESTIONS, zip(*said, strict=True), strict=True))
    return environment.get_template("page.html").render(
        audit=audit,
        runs=results,
        sections={k: v for k, v in SECTIONS.items() if k != "comparison" or audit.comparisons},
        style=Markup(environment.get_template("report.css").render()),
        version=__version__,
        include_text=include_text,
        outcomes=outcomes,
        provenance=provenance,
        questions=QUESTIONS,
        answers=answers,
        meanings={key: _merged(each, results) for key, each in answers.items()},
        incomplete=any(finding.state != "measured" for each in said for finding in each),
        verdicts=[run_verdict(each) for each in said],
        headline=headline(audit),
        measures=MEASURES,
        strips=[[(e, *_strips(e, include_text)) for e in r.examples] for r in results],
        plots=_plots(results, audit.comparisons),
    )


def _merged(answers: Sequence[Finding], results: Sequence[AuditResult]) -> dict[Finding, list[str]]:
    """Each finding with the runs that it is true of: what holds for several is said once."""
    merged: dict[Finding, list[str]] = {}
    for finding, result in zip(answers, results, strict=True):
        merged.setdefault(finding, []).append(result.name)
    return merged


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("attnpriv.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.tests["measured"] = lambda result: not isinstance(result, NotRun)
    environment.filters.update(
        bound=round_up,
        number=formats.number,
        percent=formats.percent,
        interval=formats.interval,
        share=formats.share,
        p_value=formats.p_value,
    )
    return environment


def _plots(results: Sequence[AuditResult], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """SVG by name; a list has one for each run."""
    compared = [comparison for comparison in comparisons if comparison.differences]
    names = [result.name for result in results]
    drawn: dict[str, Any] = {
        "lift": plots.lift_forest(results),
        "types": plots.type_forest(results),
        "certified": plots.certified_weights(results),
        "agreement": plots.agreement_forest(results),
        "robustness": plots.robustness_curves(results),
        "roc": plots.membership_roc(results)
        if any(not isinstance(r.membership, NotRun) for r in results)
        else None,
        "differences": plots.comparison_forest(compared, names, MEASURES) if compared else None,
    }
    of_each_run = {
        "heads": plots.head_heatmap,
        "removal": plots.removal_curves,
        "swap": plots.counterfactual_forest,
    }
    drawn = {name: svg if svg is None else Markup(svg) for name, svg in drawn.items()}
    for name, draw in of_each_run.items():
        drawn[name] = [Markup(draw(result, i)) for i, result in enumerate(results)]
    return drawn


def _strips(
    example: Example, include_text: bool
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The same tokens twice, coloured by attention and by attribution.

    The special tokens set no scale: they would drown the rest. Attention has the scale of a lift,
    from 0 to twice the average; of uniform attention, all tokens have the middle shade.
    """
    content = example.pieces[1:-1]
    top_attention = 2 * sum(p.attention for p in content) / max(len(content), 1)
    top_attribution = max((abs(p.attribution) for p in content), default=0.0)
    by_attention, by_attribution = [], []
    for piece in example.pieces:
        shade = 0 if piece.placeholder in SPECIAL else _shade(piece.attention, top_attention)
        by_attention.append(_token(piece, include_text, f"a{shade}"))
        sign = "p" if piece.attribution >= 0 else "n"
        shade = _shade(abs(piece.attribution), top_attribution)
        by_attribution.append(_token(piece, include_text, f"{sign}{shade}"))
    return by_attention, by_attribution


def _token(piece: Piece, include_text: bool, colour: str) -> dict[str, object]:
    return {
        "text": piece.placeholder or (piece.word if include_text else None),
        "colour": colour,
        "joined": piece.joined and include_text,  # joined boxes would tell long words
        "data": piece.placeholder,
    }


def _shade(value: float, top: float) -> int:
    return min(SHADES, round(SHADES * value / top)) if top > 0 else 0
