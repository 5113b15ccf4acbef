"""An audit as one HTML page: no script, no request, nothing outside the file."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from attnpriv import __version__
from attnpriv.audit.results import Audit, AuditResult, Estimate, Example, Piece
from attnpriv.report import plots
from attnpriv.report.findings import findings
from attnpriv.rounding import round_up

SHADES = 6  # depths of colour in a token heatmap


def render_html(audit: Audit, show_text: bool) -> str:
    """The page; words that are not personal data appear only with ``show_text``."""
    environment = Environment(
        loader=PackageLoader("attnpriv.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(
        bound=round_up,
        number=_number,
        percent=_percent,
        interval=_interval,
        share=_share,
        p_value=_p_value,
    )
    results = audit.results
    return environment.get_template("report.html").render(
        audit=audit,
        show_text=show_text,
        version=__version__,
        style=Markup(environment.get_template("report.css").render()),
        findings=[(result, findings(result)) for result in results],
        strips=[[(e, *_strips(e, show_text)) for e in r.examples] for r in results],
        lift_plot=Markup(plots.lift_forest(results)),
        head_plots=[Markup(plots.head_heatmap(r, i)) for i, r in enumerate(results)],
        certified_plot=Markup(plots.certified_weights(results)),
        roc_plot=_roc(results),
        robustness_plot=Markup(plots.robustness_curves(results)),
    )


def _roc(results: Sequence[AuditResult]) -> Markup | None:
    tested = any(result.membership for result in results)
    return Markup(plots.membership_roc(results)) if tested else None


def _strips(
    example: Example, show_text: bool
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """The same tokens twice, coloured by attention and by attribution.

    Colours are relative to the strongest token between [CLS] and [SEP]: the special tokens would
    drown the rest.
    """
    content = example.pieces[1:-1]
    top_attention = max((p.attention for p in content), default=0.0)
    top_attribution = max((abs(p.attribution) for p in content), default=0.0)
    by_attention, by_attribution = [], []
    for piece in example.pieces:
        special = piece.placeholder in ("[CLS]", "[SEP]")
        shade = 0 if special else _shade(piece.attention, top_attention)
        by_attention.append(_token(piece, show_text, f"a{shade}"))
        sign = "p" if piece.attribution >= 0 else "n"
        shade = _shade(abs(piece.attribution), top_attribution)
        by_attribution.append(_token(piece, show_text, f"{sign}{shade}"))
    return by_attention, by_attribution


def _token(piece: Piece, show_text: bool, colour: str) -> dict[str, object]:
    return {
        "text": piece.placeholder or (piece.word if show_text else None),
        "colour": colour,
        "joined": piece.joined and show_text,  # joined boxes would tell long words
        "data": piece.placeholder,
    }


def _shade(value: float, top: float) -> int:
    return min(SHADES, round(SHADES * value / top)) if top > 0 else 0


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _interval(estimate: Estimate, digits: int = 3) -> str:
    if estimate.value is None:
        return "–"
    low, high = _number(estimate.low, digits), _number(estimate.high, digits)
    return f"{estimate.value:.{digits}f} [{low}, {high}]"


def _share(estimate: Estimate) -> str:
    if estimate.value is None:
        return "–"
    return f"{estimate.value:.1%} [{_percent(estimate.low)}, {_percent(estimate.high)}]"


def _p_value(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
