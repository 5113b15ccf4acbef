"""What an audit returns: frozen dataclasses that turn into plain JSON.

A measure that was not taken is None; the report says why. Numbers computed from private rows are
not covered by any ε: whoever gets the report learns them exactly.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from attnpriv.sensitive import TypeQuality

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where it is undefined (0/0, no documents)."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Control:
    """An attack on something whose answer is known: what was expected, what came, did it pass."""

    expected: str
    measured: float
    passed: bool


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
    """Lift of one score over its uniform share, beside what shuffled sensitivity gives.

    Attributes:
        lift: with the bootstrap interval over documents.
        null_low: 2.5 % quantile of the lift when sensitivity is permuted among the tokens.
        null_high: 97.5 % quantile of the same.
        p_value: two-sided permutation p-value of this score alone.
        p_adjusted: the same, corrected for all scores tested together (single-step maxT).
    """

    lift: Estimate
    null_low: float | None
    null_high: float | None
    p_value: float | None
    p_adjusted: float | None


@dataclass(frozen=True)
class Head:
    """One attention head over all audited documents; see ``attnpriv.audit.attention``."""

    layer: int
    head: int
    content: Lift
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
    """Attention on sensitive tokens, over all heads and for each of them."""

    documents: int
    documents_with_sensitive: int
    sensitive_tokens: int
    content_tokens: int
    overall: Lift
    heads: tuple[Head, ...]
    certificate: Certificate
    planted: Control
    null: Control
    permutations: int
    resamples: int
    seed: int


@dataclass(frozen=True)
class AttributionResult:
    """Share of |integrated gradients| on sensitive tokens, and its lift."""

    documents: int
    documents_with_sensitive: int
    sampled_from: int
    steps: int
    share: float | None
    lift: Lift
    mean_completeness_error: float
    largest_completeness_error: float
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
    attribution: AttributionResult
    membership: MembershipResult | None
    membership_not_run: str | None
    robustness: RobustnessResult
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Comparison:
    """Overall attention lift of one run over another's, on the same documents and resamples."""

    run: str
    against: str
    lift_ratio: Estimate
    not_run: str | None


@dataclass(frozen=True)
class Audit:
    """One or several runs audited on the same data."""

    results: tuple[AuditResult, ...]
    comparisons: tuple[Comparison, ...]
    coverage: DetectorCoverage
    options: dict[str, Any]
    schema_version: int = SCHEMA_VERSION


def to_json(audit: Audit, show_text: bool = False) -> dict[str, Any]:
    """The audit as plain JSON values: no NaN or infinity, and no words unless asked for."""
    plain: dict[str, Any] = _plain(dataclasses.asdict(audit))
    if not show_text:
        for result in plain["results"]:
            for example in result["examples"]:
                for piece in example["pieces"]:
                    del piece["word"], piece["joined"]  # joined tokens would tell long words
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
