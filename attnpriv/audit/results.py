"""What an audit returns: frozen dataclasses that turn into plain JSON.

A measure that was not taken is None; the report says why. Numbers computed from private rows are
not covered by any ε: whoever gets the report learns them exactly.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from attnpriv.estimates import Control, Estimate, to_plain
from attnpriv.sensitive import TypeQuality

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClassScore:
    """One class: how many rows have it, and how well it is found."""

    label: str
    support: int
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class UtilityResult:
    """How good the predictions are. ``confusion[i][j]``: rows of class i predicted as j."""

    n: int
    accuracy: Estimate
    macro_f1: Estimate
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    resamples: int
    seed: int


@dataclass(frozen=True)
class Lift:
    """Lift of one score, beside what the draws of a null give; see ``TokenLift`` for the two nulls.

    Attributes:
        lift: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the lift under the null.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided p-value of this score alone.
        p_adjusted: the same, corrected for all scores tested together (single-step maxT).
        p_holm: the same by Holm's steps; never below their number over the draws plus one.
    """

    lift: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None
    p_adjusted: float | None
    p_holm: float | None


@dataclass(frozen=True)
class TokenLift:
    """One score on one set of sensitive tokens, against both nulls.

    Attributes:
        name: of the score or of the set.
        documents: that hold such tokens.
        tokens: how many there are.
        permuted: lift over the uniform share; null: sensitivity permuted among content tokens.
        matched: lift over tokens of the same length nearby; see ``attnpriv.audit.matched``.
        matched_tokens: how many found such a partner, and so count in ``matched``.
    """

    name: str
    documents: int
    tokens: int
    permuted: Lift
    matched: Lift
    matched_tokens: int


@dataclass(frozen=True)
class Head:
    """One attention head over all audited documents; see ``attnpriv.audit.attention``."""

    layer: int
    head: int
    content: Lift
    matched: Lift
    row_lift: float | None
    special_mass: float
    normalised_entropy: float
    largest_weight: float


@dataclass(frozen=True)
class Certificate:
    """The proved bounds beside what was measured, worst over documents, layers and heads.

    Attributes:
        logit_bound: c, or None when the logits are not clipped and nothing is certified.
        temperature: τ; its floor where heads learn their own.
        largest_weight: the largest weight measured anywhere.
        largest_weight_bound: the bound for the document in which it was measured.
        weight_ratio: the largest measured weight over the bound of its own document.
        mass_ratio: the largest sensitive mass of one row over the bound of its own document.
        row_lift_bound: bound on ``Head.row_lift`` over these documents.
        holds: whether both ratios are at most 1 up to float32 rounding; None without a clip.
    """

    logit_bound: float | None
    temperature: float
    largest_weight: float
    largest_weight_bound: float | None
    weight_ratio: float | None
    mass_ratio: float | None
    row_lift_bound: float | None
    holds: bool | None


@dataclass(frozen=True)
class AttentionResult:
    """Attention on sensitive tokens, over all heads and for each of them.

    ``layers``, ``entity_types`` and ``labels`` hold the mean over their heads; p-values are
    corrected within each of the three. Without spans ``entity_types`` is empty.
    """

    documents: int
    documents_with_sensitive: int
    sensitive_tokens: int
    content_tokens: int
    matched_tokens: int
    overall: Lift
    matched: Lift
    heads: tuple[Head, ...]
    layers: tuple[TokenLift, ...]
    entity_types: tuple[TokenLift, ...]
    labels: tuple[TokenLift, ...]
    certificate: Certificate
    planted: Control
    null: Control
    matched_planted: Control
    matched_null: Control
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class FlowResult:
    """Attention rollout and norm-weighted attention; see ``attnpriv.audit.rollout``.

    ``layers`` and ``heads`` are those of norm-weighted attention, ``norm_weighted`` their mean.
    """

    rollout: TokenLift
    norm_weighted: TokenLift
    layers: tuple[TokenLift, ...]
    heads: tuple[TokenLift, ...]


@dataclass(frozen=True)
class OcclusionResult:
    """Share of |leave-one-out| on sensitive tokens, and its agreement with |IG|.

    Attributes:
        documents: that were explained, each with one forward pass a content token.
        sampled_from: documents they were drawn from.
        share: mean share of |leave-one-out| on sensitive tokens.
        lift: of |leave-one-out|.
        integrated_gradients: lift of |IG| on the same documents.
        rank_correlation: mean over documents of Spearman's ρ with |IG| over content tokens.
        rank_documents: documents in which ρ is defined.
        null_low: 2.5 % quantile of the mean ρ when the scores are permuted among the tokens.
        null_high: 97.5 % quantile of the same.
        rank_p_value: two-sided p-value of the mean ρ.
        steps: points on each path of IG.
        seed: of the sample, the nulls and the bootstrap.
    """

    documents: int
    sampled_from: int
    share: float | None
    lift: TokenLift
    integrated_gradients: TokenLift
    rank_correlation: Estimate
    rank_documents: int
    null_low: float | None
    null_high: float | None
    rank_p_value: float | None
    steps: int
    seed: int


@dataclass(frozen=True)
class ConductanceResult:
    """Conductance through each layer's attention weights: its share on sensitive keys and lift.

    ``shares[layer]`` is the mean over the documents that hold sensitive tokens; None without such.
    """

    documents: int
    sampled_from: int
    steps: int
    shares: tuple[float | None, ...]
    layers: tuple[TokenLift, ...]
    seed: int


@dataclass(frozen=True)
class AttributionResult:
    """Share of |integrated gradients| on sensitive tokens, and its lift.

    ``unconverged`` counts the documents among them whose scores do not add up to within 5 % of what
    they should; their share counts nevertheless, by the scores as they are.
    """

    documents: int
    documents_with_sensitive: int
    sampled_from: int
    steps: int
    share: float | None
    lift: Lift
    mean_completeness_error: float
    largest_completeness_error: float
    unconverged: int
    seed: int


@dataclass(frozen=True)
class RankingFaithfulness:
    """One ranking of tokens; see ``attnpriv.audit.faithfulness``.

    Attributes:
        ranking: its name.
        comprehensiveness: fall of the predicted class's probability without the tokens ranked
            first, one for each of ``FaithfulnessResult.percents``.
        sufficiency: the same where they alone are left; lower is better.
        comprehensiveness_aopc: mean of the first over the shares.
        sufficiency_aopc: mean of the second.
        comprehensiveness_gain: by how much the mean exceeds the random ranking's, paired.
        sufficiency_gain: by how much the mean lies below the random ranking's, paired.
        infidelity: squared error of foretelling random removals, over that of foretelling nothing.
    """

    ranking: str
    comprehensiveness: tuple[Estimate, ...]
    sufficiency: tuple[Estimate, ...]
    comprehensiveness_aopc: Estimate
    sufficiency_aopc: Estimate
    comprehensiveness_gain: Estimate
    sufficiency_gain: Estimate
    infidelity: Estimate


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation of attention with |integrated gradients|, mean over documents.

    Attributes:
        documents: those in which neither score is the same for all tokens.
        mean: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the mean when attention is shuffled among the tokens.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided permutation p-value.
    """

    documents: int
    mean: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None


@dataclass(frozen=True)
class FaithfulnessResult:
    """Rankings of tokens against what removing tokens does, with two controls."""

    documents: int
    sampled_from: int
    steps: int
    percents: tuple[int, ...]
    experiments: int
    rankings: tuple[RankingFaithfulness, ...]
    rank_correlation: RankCorrelation
    positive: Control
    null: Control
    valid: bool
    resamples: int
    seed: int


@dataclass(frozen=True)
class ExplanationSensitivity:
    """Mean over documents of how far an explanation moves, relative to its norm."""

    explanation: str
    largest: Estimate


@dataclass(frozen=True)
class SensitivityResult:
    """Max-sensitivity of explanations; ``radius`` in deviations of a document's coordinates."""

    documents: int
    sampled_from: int
    radius: float
    draws: int
    steps: int
    explanations: tuple[ExplanationSensitivity, ...]
    positive: Control
    null: Control
    valid: bool
    seed: int


@dataclass(frozen=True)
class Effect:
    """What one kind of intervention does to the answer, mean over entities.

    Attributes:
        drop: fall of the predicted class's probability.
        change: absolute value of the same.
        flips: share of the entities after which another class is predicted.
        divergence: Jensen-Shannon divergence of the two answers, in bits, 0 to 1.
    """

    drop: Estimate
    change: Estimate
    flips: Estimate
    divergence: Estimate


@dataclass(frozen=True)
class EntityEffect:
    """What swapping and masking the entities of one type does; see ``audit.counterfactual``.

    Attributes:
        entity_type: the type; ``ALL`` for all of them.
        entities: how many were swapped.
        documents: in which they are.
        left_out: entities without a fitting replacement, or in documents too short for the null.
        swap: another value of the same type and length.
        mask: the entity's tokens hidden.
        swap_null: as many tokens that are not sensitive, swapped.
        mask_null: the same tokens hidden.
        excess: by how much the change of ``swap`` exceeds that of ``swap_null``, paired.
        p_value: one-sided sign-flip p-value of the excess.
        p_adjusted: the same, Holm-corrected over the types.
        flagged: whether that is below 0.05.
    """

    entity_type: str
    entities: int
    documents: int
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
    """Causal swap and mask of sensitive entities, over all of them and for each type."""

    documents: int
    overall: EntityEffect
    types: tuple[EntityEffect, ...]
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class MemorisationResult:
    """Does swapping an entity seen in training cost more than swapping one that was not?

    Attributes:
        member_documents: training documents with a swapped entity.
        held_out_documents: held-out documents with a swapped entity.
        member_entities: entities swapped in the former, in no other of the given documents.
        held_out_entities: entities swapped in the latter, in no other of the given documents.
        left_out: other entities of the sampled documents: in several of the given ones, or without
            a fitting replacement.
        member_drop: fall of the true label's log-odds, mean over entities.
        held_out_drop: the same.
        difference: the first less the second.
        p_value: one-sided, documents shuffled between the groups.
        flagged: whether that is below 0.05 and both controls passed.
    """

    member_documents: int
    held_out_documents: int
    member_entities: int
    held_out_entities: int
    left_out: int
    member_drop: Estimate
    held_out_drop: Estimate
    difference: Estimate
    p_value: float | None
    flagged: bool
    positive: Control
    null: Control
    valid: bool
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class TprAtFpr:
    """True positive rate at a false positive rate.

    Attributes:
        fpr: the rate aimed at.
        tpr: share of members above the threshold, with the exact interval.
        fpr_high: upper end of the exact interval of the threshold's own false positive rate.
        not_reported: why there is no figure, if there is none.
    """

    fpr: float
    tpr: Estimate
    fpr_high: float | None = None
    not_reported: str | None = None


@dataclass(frozen=True)
class MembershipResult:
    """A loss-threshold membership test with its two controls.

    ``repeated`` held-out rows were left out of the non-members: their texts are training rows too.
    """

    members: int
    non_members: int
    repeated: int
    auc: Estimate
    tpr: tuple[TprAtFpr, ...]
    roc: tuple[tuple[float, float], ...]
    positive: Control
    null: Control
    valid: bool
    verdict: str
    seed: int


@dataclass(frozen=True)
class AttackAtRadius:
    """Accuracy under attack at one radius; ``scale`` in units of the coordinates' deviation."""

    scale: float
    radius: float
    fgsm: Estimate
    strongest: Estimate


@dataclass(frozen=True)
class RobustnessResult:
    """Accuracy under FGSM and PGD on the token embeddings, with its two controls."""

    documents: int
    sampled_from: int
    coordinate_deviation: float
    pgd_steps: int
    clean: Estimate
    radii: tuple[AttackAtRadius, ...]
    positive: Control
    null: Control
    valid: bool
    seed: int


@dataclass(frozen=True)
class DetectorCoverage:
    """Who said what is sensitive, and how a detector compares where gold spans can tell."""

    source: str
    entity_types: tuple[str, ...]
    cannot_see: tuple[str, ...]
    quality: tuple[TypeQuality, ...] | None


@dataclass(frozen=True)
class Piece:
    """A token of an example, or all tokens of one sensitive span under its placeholder.

    Attributes:
        placeholder: ``[TYPE]`` for personal data, ``[CLS]`` and the like for special tokens.
        word: the text itself, only where ``placeholder`` is None; left out of ``to_json`` unless
            text was asked for by name.
        joined: whether it follows the piece before it without a space; left out likewise.
        attention: mean over layers, heads and queries of the weight it gets.
        attribution: integrated gradients towards the predicted class.
    """

    placeholder: str | None
    word: str | None = field(repr=False)
    joined: bool
    attention: float
    attribution: float


@dataclass(frozen=True)
class Example:
    """One held-out document, token by token."""

    label: str
    predicted: str
    probability: float
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class AuditResult:
    """Everything measured on one run folder."""

    name: str
    card: dict[str, Any]
    data_name: str
    held_out_rows: int
    utility: UtilityResult
    attention: AttentionResult
    flow: FlowResult
    attribution: AttributionResult
    conductance: ConductanceResult
    occlusion: OcclusionResult
    faithfulness: FaithfulnessResult
    sensitivity: SensitivityResult
    counterfactual: CounterfactualResult
    memorisation: MemorisationResult | None
    memorisation_not_run: str | None
    membership: MembershipResult | None
    membership_not_run: str | None
    robustness: RobustnessResult
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class PairedDifference:
    """One figure of a run less the same figure of another, paired.

    Attributes:
        measure: which figure, as its dotted path in ``AuditResult``.
        ours: of the run.
        theirs: of the other.
        difference: ours less theirs, on the same resamples of the same documents.
        documents: on which both were measured.
    """

    measure: str
    ours: float | None
    theirs: float | None
    difference: Estimate
    documents: int


@dataclass(frozen=True)
class Comparison:
    """One run against another, on the same documents and resamples.

    ``lift_ratio`` is that of the overall attention lifts.
    """

    run: str
    against: str
    lift_ratio: Estimate
    differences: tuple[PairedDifference, ...]
    not_run: str | None


@dataclass(frozen=True)
class Audit:
    """One or several runs audited on the same data."""

    results: tuple[AuditResult, ...]
    comparisons: tuple[Comparison, ...]
    coverage: DetectorCoverage
    options: dict[str, Any]
    schema_version: int = SCHEMA_VERSION


def to_json(audit: Audit, include_text: bool = False) -> dict[str, Any]:
    """The audit as plain JSON values: no NaN or infinity, and no words unless asked for."""
    plain: dict[str, Any] = to_plain(dataclasses.asdict(audit))
    if not include_text:
        for result in plain["results"]:
            for example in result["examples"]:
                for piece in example["pieces"]:
                    del piece["word"], piece["joined"]  # joined tokens would tell long words
    return plain
