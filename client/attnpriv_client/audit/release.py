"""What the policy gives away to this caller: which fields, how precisely, and which words.

Not covered: what it would answer to other callers, and to questions that were not asked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from attnpriv.estimates import wilson
from attnpriv_client.audit.alignment import overlaps
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.results import ReleaseResult, TypeShown
from attnpriv_client.domain import Explanation, ModelCard, Prediction, TokenExplanation

FLOAT32_DIGITS = 7
_HALF_STEP = 6e-8  # the most by which float32 may move a rounded probability


def release(
    answered: Sequence[Answered], again: Explanation | None, card: ModelCard | None
) -> ReleaseResult:
    """Sum up which fields the answers carry.

    Args:
        answered: the rows.
        again: a second answer to the first row that has an explanation.
        card: the model card; None if the caller may not read it.
    """
    predictions = [a.prediction for a in answered if a.prediction is not None]
    explanations = [a.explanation for a in answered if a.explanation is not None]
    both = predictions + [e.prediction for e in explanations if e.prediction]
    summary = None if card is None else card.summary

    def carries(field: Callable[[TokenExplanation], object]) -> bool | None:
        tokens = [token for each in explanations for token in each.tokens]
        return any(field(token) is not None for token in tokens) if explanations else None

    redaction = next((e.redaction for e in explanations if e.redaction is not None), None)
    return ReleaseResult(
        predictions=len(predictions),
        explanations=len(explanations),
        probabilities=any(p.probabilities for p in both) if both else None,
        probability_digits=_digits(both),
        attention=carries(lambda token: token.attention),
        layer_attention=carries(lambda token: token.layer_attention or None),
        integrated_gradients=carries(lambda token: token.integrated_gradients),
        offsets=carries(lambda token: token.offsets),
        weight_bound=any(e.weight_bound for e in explanations) if explanations else None,
        redacted=redaction is not None if explanations else None,
        detector=None if redaction is None else redaction.detector,
        cannot_see=None if redaction is None else redaction.cannot_see,
        rows_shown=wilson(sum(map(_repeats, answered)), len(explanations)),
        spans_shown=_spans_shown(answered),
        repeat_difference=None if again is None else _difference(explanations[0], again),
        card=card is not None,
        private=None if summary is None else summary.private,
        epsilon=None if summary is None else summary.epsilon,
        delta=None if summary is None else summary.delta,
    )


def _digits(predictions: Sequence[Prediction]) -> int | None:
    """The number of decimals that every probability has at most; None if there are too many."""
    values = [p for each in predictions for p in (each.probabilities or {}).values()]
    for digits in range(1, FLOAT32_DIGITS) if values else ():
        if all(abs(p - round(p, digits)) <= _HALF_STEP for p in values):
            return digits
    return None


def _repeats(answered: Answered) -> bool:
    """Whether an explanation repeats any part of its text."""
    tokens = answered.explanation.tokens if answered.explanation else ()
    shown = (token.text for token in tokens if not token.entity_types and token.text.strip())
    return any(text in answered.row.text for text in shown)


def _spans_shown(answered: Sequence[Answered]) -> tuple[TypeShown, ...]:
    """For each entity type, the share of the spans that have a character in a shown token."""
    flags: dict[str, list[bool]] = defaultdict(list)
    for each in answered:
        if each.explanation is None or each.extents is None:
            continue
        pairs = zip(each.extents, each.explanation.tokens, strict=True)
        shown = [extent for extent, token in pairs if not token.entity_types]
        for span in each.row.spans or ():
            flags[span.entity_type].append(any(overlaps(extent, [span]) for extent in shown))
    return tuple(
        TypeShown(kind, len(found), wilson(sum(found), len(found)))
        for kind, found in sorted(flags.items())
    )


def _difference(one: Explanation, other: Explanation) -> float | None:
    """The largest difference between the scores of two answers; None if their entries differ."""
    pairs = [_scores(one), _scores(other)]
    if len(pairs[0]) != len(pairs[1]):
        return None
    return max((abs(a - b) for a, b in zip(*pairs, strict=True)), default=0.0)


def _scores(explanation: Explanation) -> list[float]:
    found: list[float] = []
    for token in (*explanation.tokens, *explanation.special_tokens):
        found += token.layer_attention
        found += [s for s in (token.attention, token.integrated_gradients) if s is not None]
    return found
