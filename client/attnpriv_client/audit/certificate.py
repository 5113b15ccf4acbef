"""The certified bound on attention, and other promises of the API, compared with the answers.

Not covered: released attention is a mean over heads and queries, which can hide a single weight
above the bound; the audit of the run folder looks at each weight. Redacted entries are sums over
several keys, to which the bound does not apply, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isclose

from attnpriv.estimates import wilson
from attnpriv.guarantees import weight_bounds
from attnpriv_client.audit.asking import Answered
from attnpriv_client.audit.results import CertificateResult, NotRunError
from attnpriv_client.domain import Explanation, ModelCard

ROUNDING = 1e-5  # the relative error of float32 sums by which a weight may exceed its bound


@dataclass(frozen=True)
class _Observed:
    """One answer: its bound, the largest attention on a shown token, and the sums of its layers."""

    entries: int
    bound: float
    weight: float
    sums: tuple[float, ...]


def certificate(answered: Sequence[Answered], card: ModelCard | None) -> CertificateResult:
    """Compare the released bounds with the released attention, and with the card."""
    explained = [a for a in answered if a.explanation is not None]
    observed = [o for a in explained if a.explanation and (o := _observe(a.explanation))]
    if not observed:
        raise NotRunError("no answer carries a bound: nothing is certified, or it is withheld")
    largest = max(observed, key=lambda each: each.weight)
    ratio = max(each.weight / each.bound for each in observed)
    both = [pair for each in explained if (pair := _labels(each)) is not None]
    return CertificateResult(
        documents=len(observed),
        largest_weight=largest.weight,
        largest_weight_bound=largest.bound,
        weight_ratio=ratio,
        holds=ratio <= 1 + ROUNDING,
        matches_card=None if card is None else all(_matches(each, card) for each in observed),
        largest_sum_error=max(abs(total - 1) for each in observed for total in each.sums),
        labels_agree=wilson(sum(a == b for a, b in both), len(both)),
    )


def _labels(answered: Answered) -> tuple[str, str] | None:
    """The labels of both answers to a row; None unless the model read the same for both."""
    predicted, explanation = answered.prediction, answered.explanation
    if predicted is None or explanation is None or explanation.prediction is None:
        return None
    redaction = explanation.redaction
    hides = any(token.entity_types for token in explanation.tokens)
    if redaction is not None and redaction.hidden_from_model and hides:
        return None
    return explanation.prediction.label, predicted.label


def _observe(explanation: Explanation) -> _Observed | None:
    everything = (*explanation.tokens, *explanation.special_tokens)
    layers = list(zip(*(token.layer_attention for token in everything), strict=False))
    if explanation.weight_bound is None or not layers:
        return None
    shown = [not token.entity_types for token in everything]
    return _Observed(
        len(everything),
        explanation.weight_bound,
        max(_shown_values(layers, shown), default=0.0),
        tuple(map(sum, layers)),
    )


def _shown_values(layers: Sequence[tuple[float, ...]], shown: Sequence[bool]) -> Iterator[float]:
    for layer in layers:
        yield from (value for value, flag in zip(layer, shown, strict=True) if flag)


def _matches(observed: _Observed, card: ModelCard) -> bool:
    """Whether a bound is the one that the card's settings give for that number of keys."""
    if card.clip is None:
        return False
    temperature = card.temperature if card.temperature_floor is None else card.temperature_floor
    return isclose(observed.bound, weight_bounds(card.clip, temperature, observed.entries)[1])
