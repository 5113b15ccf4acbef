"""What an audit from outside returns: frozen dataclasses of numbers that turn into plain JSON.

No field holds a text, a token or a value of personal data. The figures are exact functions of the
audited rows, and no ε covers them: whoever gets the report learns them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attnpriv.estimates import Control, Estimate, to_plain

FORMAT = "attnpriv-client audit"
FORMAT_VERSION = 1


class NotRunError(Exception):
    """Raised by a measure that these rows and answers do not allow; its text is the reason."""


@dataclass(frozen=True)
class TypeShown:
    """Of the spans of one entity type, the share of which answers repeat at least a character."""

    entity_type: str
    spans: int
    shown: Estimate


@dataclass(frozen=True)
class ReleaseResult:
    """What the policy gives away to this caller; see ``audit.release``.

    Attributes:
        predictions: rows that have one.
        explanations: rows that have one.
        probabilities: whether predictions, or explanations, carry them.
        probability_digits: decimals after which all of them end; None where there are more than 7,
            as float32 has.
        attention: whether explanations carry it; likewise the next three.
        layer_attention: attention in each layer.
        integrated_gradients: attributions.
        offsets: where tokens stand.
        weight_bound: whether a certified bound is released.
        redacted: whether the server looks for personal data to hide it.
        detector: that it looks with.
        cannot_see: types that it never finds.
        rows_shown: share of the rows of whose text an explanation repeats at least a word.
        spans_shown: the same for spans of personal data, by entity type.
        repeat_difference: largest difference of the scores of one question asked twice; above 0,
            scores are drawn anew for each answer, such as by added noise.
        card: whether the model card may be read.
        private: what the card says of the training.
        epsilon: ε on the card.
        delta: δ on the card.
    """

    predictions: int
    explanations: int
    probabilities: bool | None
    probability_digits: int | None
    attention: bool | None
    layer_attention: bool | None
    integrated_gradients: bool | None
    offsets: bool | None
    weight_bound: bool | None
    redacted: bool | None
    detector: str | None
    cannot_see: tuple[str, ...] | None
    rows_shown: Estimate
    spans_shown: tuple[TypeShown, ...]
    repeat_difference: float | None
    card: bool
    private: bool | None
    epsilon: float | None
    delta: float | None


@dataclass(frozen=True)
class UtilityResult:
    """How many rows with a label get it."""

    n: int
    accuracy: Estimate


@dataclass(frozen=True)
class MembershipResult:
    """A loss-threshold membership test with its two controls.

    ``repeated`` texts are members and non-members both, and were left out.
    """

    members: int
    non_members: int
    repeated: int
    auc: Estimate
    positive: Control
    null: Control
    valid: bool
    verdict: str


@dataclass(frozen=True)
class ScoreLift:
    """The lift of one score, beside what permuting sensitivity among the tokens gives.

    Attributes:
        score: ``attention`` or ``integrated_gradients``.
        lift: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the lift under the null.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided p-value.
        hidden_share: mean share of the score on redacted entries; to be held against
            ``LiftResult.hidden_characters``.
    """

    score: str
    lift: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None
    hidden_share: float


@dataclass(frozen=True)
class LiftResult:
    """Lift of released scores on sensitive tokens; see ``audit.lift``.

    Attributes:
        documents: that show sensitive tokens; the lift is over them.
        unaligned: answers whose entries could not be found in their text, left out.
        tokens: shown tokens of the documents.
        sensitive_tokens: those that overlap personal data.
        hidden_entries: redacted entries of all answers, left out of the lift.
        hidden_characters: mean share of the characters that these hide.
        scores: one for each that is released.
        planted: a lift planted in random scores must be found.
        null: random scores must not be.
        valid: both controls passed.
    """

    documents: int
    unaligned: int
    tokens: int
    sensitive_tokens: int
    hidden_entries: int
    hidden_characters: float
    scores: tuple[ScoreLift, ...]
    planted: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class Effect:
    """What one kind of intervention does to the answer, mean over entities.

    The first three are None where the server withholds probabilities.

    Attributes:
        drop: fall of the predicted class's probability.
        change: absolute value of the same.
        divergence: Jensen-Shannon divergence of the two answers, in bits, 0 to 1.
        flips: share of the entities after which another class is predicted.
    """

    drop: Estimate | None
    change: Estimate | None
    divergence: Estimate | None
    flips: Estimate


@dataclass(frozen=True)
class EntityEffect:
    """What swapping and masking the entities of one type does; see ``audit.counterfactual``.

    Attributes:
        entity_type: the type; ``ALL`` for all of them.
        entities: how many were swapped.
        documents: in which they are.
        same_length: of the entities, those whose replacement has as many characters.
        left_out: entities without a replacement, or in documents with too few other words.
        swap: another value of the same type from other rows.
        mask: a neutral text in the value's place.
        swap_null: other words of at least as many characters, swapped.
        mask_null: the same words masked.
        excess: by how much the change (flips, without probabilities) of ``swap`` exceeds that of
            ``swap_null``, paired.
        p_value: one-sided sign-flip p-value of the excess.
        p_adjusted: the same, Holm-corrected over the types.
        flagged: whether that is below 0.05.
    """

    entity_type: str
    entities: int
    documents: int
    same_length: int
    left_out: int
    swap: Effect
    mask: Effect
    swap_null: Effect
    mask_null: Effect
    excess: Estimate
    p_value: float | None
    p_adjusted: float | None
    flagged: bool


@dataclass(frozen=True)
class CounterfactualResult:
    """Causal swap and mask of sensitive entities, over all of them and for each type.

    ``compared`` is ``probabilities``, or ``labels`` where the server withholds those.
    """

    documents: int
    compared: str
    overall: EntityEffect
    types: tuple[EntityEffect, ...]
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class RankingFaithfulness:
    """One ranking of words; see ``audit.faithfulness``.

    Attributes:
        ranking: its name.
        comprehensiveness: fall of the predicted class's probability without the words ranked
            first, one for each of ``FaithfulnessResult.percents``.
        sufficiency: the same where they alone are left; lower is better.
        comprehensiveness_aopc: mean of the first over the shares.
        sufficiency_aopc: mean of the second.
        comprehensiveness_gain: by how much the mean exceeds the random ranking's, paired.
        sufficiency_gain: by how much the mean lies below the random ranking's, paired.
    """

    ranking: str
    comprehensiveness: tuple[Estimate, ...]
    sufficiency: tuple[Estimate, ...]
    comprehensiveness_aopc: Estimate
    sufficiency_aopc: Estimate
    comprehensiveness_gain: Estimate
    sufficiency_gain: Estimate


@dataclass(frozen=True)
class FaithfulnessResult:
    """Rankings of words against what deleting words does, with two controls."""

    documents: int
    percents: tuple[int, ...]
    rankings: tuple[RankingFaithfulness, ...]
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class CertificateResult:
    """What is certified, beside what is observed; see ``audit.certificate``.

    Attributes:
        documents: answers that carry a bound.
        largest_weight: the largest released attention on one shown token, in any layer.
        largest_weight_bound: the bound of the document in which it is.
        weight_ratio: the largest released attention over the bound of its own document.
        holds: whether that is at most 1, up to rounding.
        matches_card: whether every bound is what the card's temperature and clip give; None where
            the card may not be read.
        largest_sum_error: how far the attention of a layer is from summing to 1, at most.
        labels_agree: share of the rows for which Explain predicts what Predict does.
    """

    documents: int
    largest_weight: float
    largest_weight_bound: float
    weight_ratio: float
    holds: bool
    matches_card: bool | None
    largest_sum_error: float
    labels_agree: Estimate


Result = (
    ReleaseResult
    | UtilityResult
    | MembershipResult
    | CounterfactualResult
    | LiftResult
    | FaithfulnessResult
    | CertificateResult
)


@dataclass(frozen=True)
class NotRun:
    """A measure without a result, and why."""

    measure: str
    reason: str


@dataclass(frozen=True)
class PartlyRun:
    """A measure on fewer rows than there are, and why."""

    measure: str
    rows: int
    of: int
    reason: str


@dataclass(frozen=True)
class Audit:
    """One model of one server, as one caller sees it.

    Attributes:
        model: its name.
        version: that answered.
        data: the name of the file, without folder and suffix.
        rows_in_file: all of them.
        rows: that were asked about.
        rows_refused: of these, those that the server refused.
        rows_truncated: of these, those longer than the model reads.
        seed: of the sample of rows and of everything that is drawn.
        options: what was asked for.
        measures: by name, in the order of the report.
        not_run: the others.
        partly_run: those of ``measures`` that lack rows.
        interrupted: somebody stopped the audit; what was measured by then is here.
    """

    model: str
    version: str
    data: str
    rows_in_file: int
    rows: int
    rows_refused: int
    rows_truncated: int
    seed: int
    options: dict[str, int | str | None]
    measures: dict[str, Result]
    not_run: tuple[NotRun, ...]
    partly_run: tuple[PartlyRun, ...]
    interrupted: bool


def to_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain JSON values, without NaN or infinity."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    plain: dict[str, Any] = to_plain({**head, **asdict(audit)})
    return plain
