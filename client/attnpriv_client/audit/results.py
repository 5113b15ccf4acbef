"""The results of an audit from outside, as frozen dataclasses of numbers that become plain JSON.

No field holds a text, a token or a value of personal data. The figures are exact functions of the
audited rows, and no ε covers them: everyone who reads the report learns them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from attnpriv.estimates import Control, Estimate, to_plain
from attnpriv.leaks import FORMAT, FORMAT_VERSION, Leak
from attnpriv_client.audit.attack_results import (
    AttributesResult,
    ExplanationAttacksResult,
    ExposureResult,
    HiddenWordsResult,
    MembershipResult,
    ShadowAttacksResult,
)


class NotRunError(Exception):
    """Raised by a measure that these rows and answers do not allow; its text is the reason."""


@dataclass(frozen=True)
class TypeShown:
    """The share of the spans of one entity type of which answers repeat at least one character."""

    entity_type: str
    spans: int
    shown: Estimate


@dataclass(frozen=True)
class ReleaseResult:
    """What the policy gives away to this caller; see ``audit.release``.

    Attributes:
        predictions: number of rows with a prediction.
        explanations: number of rows with an explanation.
        probabilities: whether predictions, or explanations, have probabilities.
        probability_digits: the number of decimals that all of them have at most; None if they have
            as many as float32.
        attention: whether explanations have attention.
        layer_attention: whether they have attention in each layer.
        integrated_gradients: whether they have attributions.
        offsets: whether they say where tokens stand in the text.
        weight_bound: whether a certified bound is released.
        redacted: whether the server looks for personal data to hide.
        detector: the detector that it uses.
        cannot_see: types that the detector does not find, or misses too often to rely on.
        rows_shown: share of the rows whose explanation repeats at least one word of the text.
        spans_shown: the same for spans of personal data, by entity type.
        repeat_difference: largest difference between the scores of the same question asked twice.
            Above 0, scores are drawn anew for each answer, for example by adding noise.
        card: whether the model card may be read.
        private: whether the card says that the training was private.
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
    """How many rows with a label are predicted to have it."""

    n: int
    accuracy: Estimate


@dataclass(frozen=True)
class ScoreLift:
    """The lift of one score, with its null from permuting sensitivity among the tokens.

    Attributes:
        score: ``attention`` or ``integrated_gradients``.
        lift: the lift, with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the lift under the null.
        null_high: 97.5 % quantile of the lift under the null.
        p_value: two-sided p-value.
        hidden_share: mean share of the score on redacted entries; compare it with
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
        documents: number of documents that show sensitive tokens; the lift is over these.
        unaligned: number of answers left out because their entries cannot be found in the text.
        tokens: number of shown tokens of the documents.
        sensitive_tokens: number of these that overlap personal data.
        hidden_entries: number of redacted entries of all answers, which the lift leaves out.
        hidden_characters: mean share of the characters that these entries hide.
        scores: one result for each released score.
        planted: control: a lift planted in random scores must be found.
        null: control: in random scores, none must be found.
        valid: whether both controls passed.
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
    """How one kind of intervention changes the answer, as the mean over entities.

    The first three are None if the server withholds probabilities.

    Attributes:
        drop: the fall in the probability of the predicted class.
        change: the absolute value of the drop.
        divergence: Jensen-Shannon divergence of the two answers, in bits, 0 to 1.
        flips: share of the entities after whose replacement another class is predicted.
    """

    drop: Estimate | None
    change: Estimate | None
    divergence: Estimate | None
    flips: Estimate


@dataclass(frozen=True)
class EntityEffect:
    """The effect of swapping and masking the entities of one type; see ``audit.counterfactual``.

    Attributes:
        entity_type: the type; ``ALL`` for all of them.
        entities: number of entities that were swapped.
        documents: number of documents that they are in.
        same_length: number of entities whose replacement has the same number of characters.
        left_out: number of entities without a replacement, or in documents with too few other
            words.
        swap: effect of another value of the same type, from other rows.
        mask: effect of a neutral text in place of the value.
        swap_null: effect of swapping other words of at least as many characters.
        mask_null: effect of masking the same words.
        excess: by how much the change (or flips, without probabilities) of ``swap`` exceeds that of
            ``swap_null``, paired.
        p_value: one-sided sign-flip p-value of the excess.
        p_adjusted: the p-value, Holm-corrected over the types.
        flagged: whether the corrected p-value is below 0.05.
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

    ``compared`` is ``probabilities``, or ``labels`` if the server withholds probabilities.
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
        ranking: name of the ranking.
        comprehensiveness: the fall in the probability of the predicted class without the words
            ranked first, one for each of ``FaithfulnessResult.percents``; higher is better.
        sufficiency: the fall if only those words are left; lower is better.
        comprehensiveness_aopc: mean of the comprehensiveness over the shares.
        sufficiency_aopc: mean of the sufficiency over the shares.
        comprehensiveness_gain: by how much the mean exceeds the random ranking's, paired.
        sufficiency_gain: by how much the mean is below the random ranking's, paired.
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
    """How well rankings of words predict what deleting words does, with two controls."""

    documents: int
    percents: tuple[int, ...]
    rankings: tuple[RankingFaithfulness, ...]
    positive: Control
    null: Control
    valid: bool


@dataclass(frozen=True)
class CertificateResult:
    """The certified bounds compared with the released attention; see ``audit.certificate``.

    Attributes:
        documents: number of answers with a bound.
        largest_weight: the largest released attention on one shown token, in any layer.
        largest_weight_bound: the bound of the document with that token.
        weight_ratio: the largest ratio of released attention to the bound of its own document.
        holds: whether that ratio is at most 1, up to rounding.
        matches_card: whether every bound is what the card's temperature and clip give; None if the
            card may not be read.
        largest_sum_error: the largest distance of a layer's summed attention from 1.
        labels_agree: share of the rows for which Explain and Predict predict the same class.
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
    | ShadowAttacksResult
    | ExplanationAttacksResult
    | ExposureResult
    | HiddenWordsResult
    | AttributesResult
)


@dataclass(frozen=True)
class NotRun:
    """A measure without a result, and the reason."""

    measure: str
    reason: str


@dataclass(frozen=True)
class PartlyRun:
    """A measure on fewer rows than there are, and the reason."""

    measure: str
    rows: int
    of: int
    reason: str


@dataclass(frozen=True)
class Audit:
    """One model of one server, as one caller sees it.

    Attributes:
        model: name of the model.
        version: the version that answered.
        data: the name of the file, without folder and suffix.
        rows_in_file: number of rows in the file.
        rows: number of rows that were asked about.
        rows_refused: number of these that the server refused.
        rows_truncated: number of these that are longer than the model reads.
        seed: seed of the sample of rows and of everything that is drawn.
        options: the options of the audit.
        measures: the results by name, in the order of the report.
        not_run: the measures without a result.
        partly_run: the measures with a result that lack rows.
        interrupted: whether the audit was interrupted; it holds what was measured by then.
        charged_epsilon: ε that all answers were charged to the caller's budget, because the policy
            draws them; 0 where nothing is drawn. Answers that are drawn are used as they come.
        leaks: one entry for each attack, also for those that were not run.
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
    charged_epsilon: float
    leaks: tuple[Leak, ...]


def to_json(audit: Audit) -> dict[str, Any]:
    """The audit as plain JSON values, without NaN or infinity."""
    head = {"format": FORMAT, "format_version": FORMAT_VERSION}
    plain: dict[str, Any] = to_plain({**head, **asdict(audit)})
    return plain
