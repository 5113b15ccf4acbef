"""An audit as a table for a terminal,."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from attnpriv.estimates import Estimate
from attnpriv.rounding import round_up
from attnpriv.verdicts import Judgement
from attnpriv_client.audit.attack_results import (
    AttributesResult,
    ExplanationAttacksResult,
    ExposureResult,
    HiddenWordsResult,
    MembershipResult,
    ShadowAttacksResult,
)
from attnpriv_client.audit.faithfulness import LEAVE_ONE_OUT, RANDOM
from attnpriv_client.audit.results import (
    Audit,
    CertificateResult,
    CounterfactualResult,
    FaithfulnessResult,
    LiftResult,
    ReleaseResult,
    Result,
    UtilityResult,
)
from attnpriv_client.render import printable

INVALID = "INVALID: a control failed"

Line = tuple[str, int, str, str]
"""What was measured, on how many, the figure, and what to compare it with."""


def audit_view(audit: Audit) -> RenderableType:
    """A table of every figure with its interval and null, then what was not run and why."""
    table = Table("measure", "n", "figure [95 % interval]", "null, control, verdict")
    for name, result in audit.measures.items():
        for what, n, figure, beside in _lines(result):
            label = f"{name}: {what}" if what else name
            table.add_row(*map(_plain, (label, str(n), figure, beside)))
    notes = [
        f"{audit.model}, version {audit.version}; {audit.rows} of {audit.rows_in_file} rows "
        f"({audit.rows_refused} refused, {audit.rows_truncated} longer than the model reads); "
        f"seed {audit.seed}",
        *_charged(audit),
        *(f"not run: {each.measure}: {each.reason}" for each in audit.not_run),
        *(
            f"partly run: {each.measure}: {each.rows} of {each.of} rows: {each.reason}"
            for each in audit.partly_run
        ),
    ]
    return Group(table, _plain("\n".join(notes)))


def _charged(audit: Audit) -> Iterator[str]:
    if audit.charged_epsilon:
        spent = f"ε = {audit.charged_epsilon:g} in all"
        yield f"answers were drawn, which was charged {spent}; they were used as they came"


def _lines(result: Result) -> Iterator[Line]:
    match result:
        case ReleaseResult():
            yield from _release(result)
        case UtilityResult():
            yield "accuracy", result.n, _estimate(result.accuracy), ""
        case MembershipResult():
            n = result.members + result.non_members
            yield f"AUC by {result.by}", n, _estimate(result.auc), _verdict(result)
        case ShadowAttacksResult() | ExplanationAttacksResult():
            yield from _attacks(result)
        case ExposureResult():
            yield from _exposure(result)
        case HiddenWordsResult():
            yield from _hidden_words(result)
        case AttributesResult():
            yield from _attributes(result)
        case CounterfactualResult():
            yield from _counterfactual(result)
        case LiftResult():
            yield from _lift(result)
        case FaithfulnessResult():
            yield from _faithfulness(result)
        case CertificateResult():
            yield from _certificate(result)
        case _:
            assert_never(result)


def _verdict(result: MembershipResult) -> str:
    return _judged(result.judgement, result.valid)


def _judged(judgement: Judgement, valid: bool) -> str:
    if not valid:
        return INVALID
    allowed = ""
    if judgement.allowed is not None:
        allowed = f" (allowed up to {round_up(judgement.allowed, 3)})"
    return f"{judgement.verdict}{allowed}"


def _attacks(result: ShadowAttacksResult | ExplanationAttacksResult) -> Iterator[Line]:
    n = result.members + result.non_members
    yield "loss threshold, AUC", n, _estimate(result.loss.auc), ""
    if isinstance(result, ExplanationAttacksResult):
        yield "texts alone, AUC", n, _estimate(result.texts.auc), ""
    for name, attack in result.attacks.items():
        yield f"{name}, AUC", n, _estimate(attack.auc), _judged(attack.judgement, result.valid)


def _exposure(result: ExposureResult) -> Iterator[Line]:
    for each in result.levels:
        yield (
            f"at {each.repetitions} repetitions, bits",
            each.secrets,
            _estimate(each.exposure),
            f"by chance {result.by_chance:.3g}, p {each.p_adjusted:.3g}",
        )
    secrets = sum(each.secrets for each in result.levels)
    yield "verdict", secrets, "", _judged(result.judgement, result.valid)


def _hidden_words(result: HiddenWordsResult) -> Iterator[Line]:
    for k in (1, 10):
        by_type = _estimate(getattr(result, f"by_type_top{k}"))
        named = _estimate(getattr(result, f"top{k}"))
        yield f"named within {k}", result.words, named, f"by type and place {by_type}"
    gain, verdict = _estimate(result.top1_gain), _judged(result.judgement, result.valid)
    yield "gain within 1", result.words, gain, verdict


def _attributes(result: AttributesResult) -> Iterator[Line]:
    for each in result.guesses:
        what = f"{each.entity_type} by {each.source}, gain"
        verdict = _judged(each.judgement, result.valid)
        beside = f"by label {_estimate(each.by_label)}, {verdict}"
        yield what, result.documents, _estimate(each.gain), beside


def _release(result: ReleaseResult) -> Iterator[Line]:
    fields = ("probabilities", "attention", "integrated_gradients", "offsets", "weight_bound")
    released = [name for name in fields if getattr(result, name)]
    answers = max(result.predictions, result.explanations)
    nothing = "labels alone" if answers else "nothing"
    yield "fields", answers, ", ".join(released) or nothing, _form(result)
    if result.explanations:
        yield "rows whose words are repeated", result.explanations, _estimate(result.rows_shown), ""
    for each in result.spans_shown:
        yield f"{each.entity_type} repeated", each.spans, _estimate(each.shown), ""


def _form(result: ReleaseResult) -> str:
    """How precise the released figures are."""
    notes = []
    if result.probability_digits is not None:
        notes.append(f"probabilities of {result.probability_digits} digits")
    if result.redacted is not None:
        notes.append(f"redacted by {result.detector}" if result.redacted else "not redacted")
    if result.repeat_difference is not None:
        notes.append(f"scores asked twice differ by {result.repeat_difference:.2g}")
    return ", ".join(notes)


def _counterfactual(result: CounterfactualResult) -> Iterator[Line]:
    what = "change" if result.compared == "probabilities" else "flips"
    for each in (result.overall, *result.types):
        yield (
            f"{each.entity_type}, flips by swap",
            each.entities,
            _estimate(each.swap.flips),
            f"other words {_estimate(each.swap_null.flips)}",
        )
        p_value = "" if each.p_adjusted is None else f"p {each.p_adjusted:.3g}, "
        verdict = "FLAGGED" if each.flagged else "not flagged"
        yield (
            f"{each.entity_type}, excess {what}",
            each.entities,
            _estimate(each.excess),
            f"{p_value}{verdict if result.valid else INVALID}",
        )


def _lift(result: LiftResult) -> Iterator[Line]:
    for each in result.scores:
        beside = INVALID
        if result.valid and each.null_low is not None and each.p_value is not None:
            beside = f"null {each.null_low:.4g} to {each.null_high:.4g}, p {each.p_value:.3g}"
        yield each.score, result.documents, _estimate(each.lift), beside
        if result.hidden_entries:
            share = f"share {each.hidden_share:.3g}"
            characters = f"{result.hidden_characters:.3g} of the characters"
            yield f"{each.score} on what is hidden", result.hidden_entries, share, characters


def _faithfulness(result: FaithfulnessResult) -> Iterator[Line]:
    for each in result.rankings:
        if each.ranking in (LEAVE_ONE_OUT, RANDOM):
            continue  # used by the controls only
        beside = "over random words" if result.valid else INVALID
        for part in ("comprehensiveness", "sufficiency"):
            gain = _estimate(getattr(each, f"{part}_gain"))
            yield f"{each.ranking}, {part} gain", result.documents, gain, beside


def _certificate(result: CertificateResult) -> Iterator[Line]:
    card = {None: "card not readable", True: "as the card says", False: "NOT as the card says"}
    holds = "holds" if result.holds else "DOES NOT HOLD"
    yield (
        "largest attention over its bound",
        result.documents,
        f"{result.weight_ratio:.4f}",
        f"{holds}, {card[result.matches_card]}",
    )


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


def _plain(text: str) -> Text:
    """A text shown as it is, without interpreting markup."""
    return Text(printable(text))
