"""What an audit measures, in one closed table.

A measure is one module, with its result's type and a function ``run``; one row of the table below;
one field of ``AuditResult``; and one chapter of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from attnpriv.audit import (
    attention,
    attribution,
    certified,
    conductance,
    counterfactual,
    examples,
    exposure,
    faithfulness,
    gradcam,
    infidelity,
    memorisation,
    occlusion,
    rollout,
    spatial_gates,
    utility,
)
from attnpriv.audit.attention import AttentionResult
from attnpriv.audit.attribution import AttributionResult
from attnpriv.audit.certified import CertifiedResult
from attnpriv.audit.checklist import behaviour
from attnpriv.audit.checklist.behaviour import ChecklistResult
from attnpriv.audit.conductance import ConductanceResult
from attnpriv.audit.counterfactual import CounterfactualResult
from attnpriv.audit.examples import Example
from attnpriv.audit.exposure import ExposureResult
from attnpriv.audit.faithfulness import FaithfulnessResult
from attnpriv.audit.figures import Figures
from attnpriv.audit.gradcam import GradCamResult
from attnpriv.audit.infidelity import SensitivityResult
from attnpriv.audit.leakage import (
    canaries,
    explanation_attacks,
    inversion,
    membership,
    served,
    shadow_attacks,
)
from attnpriv.audit.leakage.canaries import CanariesResult
from attnpriv.audit.leakage.explanation_attacks import ExplanationAttacksResult
from attnpriv.audit.leakage.inversion import InversionResult
from attnpriv.audit.leakage.membership import MembershipResult
from attnpriv.audit.leakage.served import ServedResult
from attnpriv.audit.leakage.shadow_attacks import ShadowAttacksResult
from attnpriv.audit.memorisation import MemorisationResult
from attnpriv.audit.results import NotRun
from attnpriv.audit.robustness import attention as attention_attacks
from attnpriv.audit.robustness import embedding, pixels, text
from attnpriv.audit.robustness.attention import AttentionAttackResult
from attnpriv.audit.robustness.embedding import RobustnessResult
from attnpriv.audit.robustness.pixels import PixelAttackResult
from attnpriv.audit.robustness.text import TextAttackResult
from attnpriv.audit.rollout import FlowResult
from attnpriv.audit.second_opinion import SecondOpinionResult
from attnpriv.audit.spatial_gates import SpatialGatesResult
from attnpriv.audit.subject import Answers, Need, Pass, Progress, Subject
from attnpriv.audit.utility import UtilityResult
from attnpriv.errors import InputError

Read = TypeVar("Read", contravariant=True)


@dataclass(frozen=True)
class AuditResult:
    """Everything measured on one run folder."""

    name: str
    card: dict[str, Any]
    data_name: str
    held_out_rows: int
    utility: UtilityResult
    attention: AttentionResult | NotRun
    flow: FlowResult | NotRun
    spatial_gates: SpatialGatesResult | NotRun
    attribution: AttributionResult
    conductance: ConductanceResult | NotRun
    occlusion: SecondOpinionResult
    gradcam: GradCamResult | NotRun
    faithfulness: FaithfulnessResult | NotRun
    sensitivity: SensitivityResult
    counterfactual: CounterfactualResult
    memorisation: MemorisationResult | NotRun
    exposure: ExposureResult | NotRun
    membership: MembershipResult | NotRun
    shadow_attacks: ShadowAttacksResult | NotRun
    canaries: CanariesResult | NotRun
    explanation_attacks: ExplanationAttacksResult | NotRun
    inversion: InversionResult | NotRun
    served: ServedResult | NotRun
    robustness: RobustnessResult
    pixel_attacks: PixelAttackResult | NotRun
    attention_attacks: AttentionAttackResult | NotRun
    text_attacks: TextAttackResult | NotRun
    certified: CertifiedResult | NotRun
    checklist: ChecklistResult | NotRun
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Measure(Generic[Read]):
    """One measure.

    Attributes:
        name: of its field in ``AuditResult``.
        result: the type of what ``run`` returns.
        run: measures it; ``Figures`` takes in what can be compared between runs.
        words: what it does, for a bar of progress.
        needs: what it cannot be run without; ``NotRun`` stands where its result would otherwise.
        explains: the documents whose integrated gradients it reads, if it reads any; those of all
            measures are computed once, before they are run.
        passes: roughly how many documents it sends through the model, a backward pass counted as
            two; the expected end of the audit is told by it.
    """

    name: str
    result: Any
    run: Callable[[Subject, Read, Progress, Figures], Any]
    words: str
    needs: tuple[Need, ...] = ()
    explains: Callable[[Subject, Pass], list[int]] | None = None
    passes: Callable[[Subject], float] = lambda subject: 0.0


OF_THE_PASS: tuple[Measure[Pass], ...] = (
    Measure("utility", UtilityResult, utility.run, "utility"),
    Measure("attention", AttentionResult, attention.run, "attention", needs=("self-attention",)),
    Measure(
        "flow",
        FlowResult,
        rollout.run,
        "rollout and norms",
        needs=("self-attention", "layers"),
    ),
    Measure(
        "spatial_gates",
        SpatialGatesResult,
        spatial_gates.run,
        "spatial gates",
        needs=("spatial gates",),
    ),
    Measure(
        "examples",
        tuple[Example, ...],
        examples.run,
        "examples",
        explains=examples.explains,
    ),
    Measure("served", ServedResult, served.run, "answers of a server", needs=("answers",)),
)
"""Read off the pass over the documents, where its numbers are at hand."""

ALONE: tuple[Measure[Answers], ...] = (
    Measure(
        "attribution",
        AttributionResult,
        attribution.run,
        "lift of integrated gradients",
        explains=attribution.explains,
    ),
    Measure(
        "conductance",
        ConductanceResult,
        conductance.run,
        "conductance of attention",
        needs=("self-attention", "layers"),
        passes=conductance.passes,
    ),
    Measure(
        "occlusion",
        SecondOpinionResult,
        occlusion.run,
        "occlusion",
        explains=attribution.explains,
        passes=occlusion.passes,
    ),
    Measure(
        "gradcam",
        GradCamResult,
        gradcam.run,
        "GradCAM and HiResCAM",
        needs=("feature maps",),
        explains=attribution.explains,
        passes=gradcam.passes,
    ),
    Measure(
        "faithfulness",
        FaithfulnessResult,
        faithfulness.run,
        "faithfulness",
        needs=("self-attention",),
        explains=faithfulness.explains,
        passes=faithfulness.passes,
    ),
    Measure(
        "sensitivity",
        SensitivityResult,
        infidelity.run,
        "sensitivity",
        passes=infidelity.passes,
    ),
    Measure(
        "counterfactual",
        CounterfactualResult,
        counterfactual.run,
        "swapping personal data",
        passes=counterfactual.passes,
    ),
    Measure(
        "memorisation",
        MemorisationResult,
        memorisation.run,
        "swapping in training rows",
        needs=("texts", "members"),
        passes=memorisation.passes,
    ),
    Measure(
        "exposure",
        ExposureResult,
        exposure.run,
        "exposure of planted secrets",
        needs=("texts", "members", "secrets"),
        passes=exposure.passes,
    ),
    Measure(
        "membership",
        MembershipResult,
        membership.run,
        "membership",
        needs=("members", "non-members"),
        passes=membership.passes,
    ),
    Measure(
        "shadow_attacks",
        ShadowAttacksResult,
        shadow_attacks.run,
        "attacks with shadow models",
        needs=("members", "non-members", "shadows"),
    ),
    Measure(
        "canaries",
        CanariesResult,
        canaries.run,
        "coins of canaries",
        needs=("canaries",),
        passes=canaries.passes,
    ),
    Measure(
        "explanation_attacks",
        ExplanationAttacksResult,
        explanation_attacks.run,
        "attacks on explanations",
        needs=("texts", "layers", "members", "non-members", "halves"),
        passes=explanation_attacks.passes,
    ),
    Measure(
        "inversion",
        InversionResult,
        inversion.run,
        "reading texts",
        needs=("texts", "layers", "half"),
        passes=inversion.passes,
    ),
    Measure(
        "robustness",
        RobustnessResult,
        embedding.run,
        "attacks on embeddings",
        passes=embedding.passes,
    ),
    Measure(
        "pixel_attacks",
        PixelAttackResult,
        pixels.run,
        "attacks on pixels",
        needs=("images",),
        passes=pixels.passes,
    ),
    Measure(
        "attention_attacks",
        AttentionAttackResult,
        attention_attacks.run,
        "attacks on attention",
        needs=("self-attention", "personal data"),
        passes=attention_attacks.passes,
    ),
    Measure(
        "text_attacks",
        TextAttackResult,
        text.run,
        "edits of texts",
        needs=("texts",),
        passes=text.passes,
    ),
    Measure(
        "certified",
        CertifiedResult,
        certified.run,
        "certified answers",
        needs=("tokens one by one",),
        passes=certified.passes,
    ),
    Measure(
        "checklist",
        ChecklistResult,
        behaviour.run,
        "behavioural tests",
        needs=("texts",),
        passes=behaviour.passes,
    ),
)
"""Pieces of work of their own, for any process; each knows the answers alone."""

APART: Measure[Answers] = Measure(
    "swaps-apart",
    int,
    counterfactual.run_apart,
    "swapping personal data",
    passes=counterfactual.passes_apart,
)
"""In the place of ``counterfactual`` where figures are noised; no other record counts in it."""

MEASURES: tuple[Measure[Pass], ...] = (*OF_THE_PASS, *ALONE)

SKIPPABLE = tuple(each.name for each in MEASURES if each.needs)
"""Measures that an audit can do without; the others stand in every report."""


def check_skipped(names: Sequence[str]) -> None:
    """Raise InputError for a name that is no measure which can be skipped."""
    for name in names:
        if name not in SKIPPABLE:
            raise InputError(f"expected measures to skip among {', '.join(SKIPPABLE)}, got {name}")
