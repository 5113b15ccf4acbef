"""The measures of one run after the pass over its documents, each of them one piece of work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from attnpriv.audit.attribution import measure_attribution
from attnpriv.audit.conductance import measure_conductance
from attnpriv.audit.counterfactual import measure_counterfactuals
from attnpriv.audit.documents import sample
from attnpriv.audit.faithfulness import measure_faithfulness
from attnpriv.audit.figures import Figures
from attnpriv.audit.infidelity import measure_sensitivity
from attnpriv.audit.leakage.membership import membership, true_label_log_odds
from attnpriv.audit.memorisation import measure_memorisation
from attnpriv.audit.occlusion import measure_occlusion
from attnpriv.audit.results import (
    AttributionResult,
    ConductanceResult,
    CounterfactualResult,
    FaithfulnessResult,
    MembershipResult,
    MemorisationResult,
    OcclusionResult,
    RobustnessResult,
    SensitivityResult,
)
from attnpriv.audit.robustness import embedding_attacks
from attnpriv.audit.rollout import rollout_received
from attnpriv.audit.statistics import Floats
from attnpriv.audit.subject import Subject
from attnpriv.models.text import pooled_features

FEATURE_ROWS = 400  # held-out rows for the positive control of the membership test

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Answers:
    """Class probabilities [documents, K] of a run's held-out rows and of its training rows."""

    held_out: Floats
    members: Floats

    @property
    def targets(self) -> list[int]:
        """The predicted class of each held-out row."""
        targets: list[int] = self.held_out.argmax(1).tolist()
        return targets


@dataclass(frozen=True)
class Measured:
    """What a stage gives.

    Attributes:
        result: as it stands in the report.
        figures: those of its figures that can be compared between runs.
    """

    result: Any
    figures: Figures


Stage = Callable[[Subject, Answers, Progress, Figures], Any]


def _explain(
    explain: Callable[..., Any],
    subject: Subject,
    answers: Answers,
    progress: Progress,
    figures: Figures,
) -> Any:
    """One of the measures that explain the predictions on one sample."""
    return explain(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=subject.options.ig_documents,
        steps=subject.options.ig_steps,
        progress=progress,
        **_draws(subject),
    )


def _attribution(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> AttributionResult:
    explain = partial(measure_attribution, figures=figures)
    result: AttributionResult = _explain(explain, subject, answers, progress, figures)
    return result


def _faithfulness(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> FaithfulnessResult:
    return measure_faithfulness(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=subject.options.faithfulness_documents,
        steps=subject.options.ig_steps,
        scorers={"rollout": rollout_received},
        progress=progress,
        **_draws(subject),
    )


def _sensitivity(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> SensitivityResult:
    return measure_sensitivity(
        subject.run.model,
        subject.documents,
        answers.targets,
        most=subject.options.sensitivity_documents,
        steps=subject.options.ig_steps,
        resamples=subject.options.resamples,
        seed=subject.options.seed,
        progress=progress,
    )


def _counterfactual(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> CounterfactualResult:
    return measure_counterfactuals(
        subject.run,
        subject.documents,
        subject.spans_of(subject.rows.held_out),
        most=subject.options.counterfactual_documents,
        progress=progress,
        figures=figures,
        **_draws(subject),
    )


def _memorisation(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> MemorisationResult | None:
    if subject.rows.members is None:
        return None
    return measure_memorisation(
        subject.run,
        subject.members,
        subject.spans_of(subject.rows.members),
        subject.documents,
        subject.spans_of(subject.rows.held_out),
        trained_on=subject.other_training_texts,
        most=subject.options.memorisation_documents,
        progress=progress,
        **_draws(subject),
    )


def _membership(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> MembershipResult | None:
    rows, seed = subject.rows, subject.options.seed
    if rows.without_members:
        return None
    documents = subject.documents
    unseen = subject.unseen
    encodings = [documents.encodings[unseen[i]] for i in sample(len(unseen), FEATURE_ROWS, seed)]
    return membership(
        true_label_log_odds(answers.members, subject.members.data.labels),
        true_label_log_odds(answers.held_out, documents.data.labels)[unseen],
        pooled_features(subject.run.model, encodings, documents.pad_id, progress=progress)
        .double()
        .numpy(),
        len(subject.data.label_names),
        seed,
        repeated=len(rows.repeated),
    )


def _robustness(
    subject: Subject, answers: Answers, progress: Progress, figures: Figures
) -> RobustnessResult:
    return embedding_attacks(
        subject.run.model,
        subject.documents,
        subject.options.pgd_documents,
        subject.options.seed,
        progress,
        figures,
    )


def _draws(subject: Subject) -> dict[str, int]:
    options = subject.options
    return {
        "permutations": options.permutations,
        "resamples": options.resamples,
        "seed": options.seed,
    }


STAGES: dict[str, tuple[Stage, Any]] = {
    "attribution": (_attribution, AttributionResult),
    "conductance": (partial(_explain, measure_conductance), ConductanceResult),
    "occlusion": (partial(_explain, measure_occlusion), OcclusionResult),
    "faithfulness": (_faithfulness, FaithfulnessResult),
    "sensitivity": (_sensitivity, SensitivityResult),
    "counterfactual": (_counterfactual, CounterfactualResult),
    "memorisation": (_memorisation, MemorisationResult | None),
    "membership": (_membership, MembershipResult | None),
    "robustness": (_robustness, RobustnessResult),
}
"""By their names in ``AuditResult``: how each is measured, and what it gives."""


def measure(stage: str, subject: Subject, answers: Answers, progress: Progress) -> Measured:
    """One of ``STAGES``."""
    figures: Figures = {}
    return Measured(STAGES[stage][0](subject, answers, progress, figures), figures)


def dump(measured: Measured) -> bytes:
    """As JSON; every float comes back with the same bits."""
    return json.dumps(asdict(measured)).encode()


def parse(stage: str, content: bytes) -> Measured:
    """What ``dump`` wrote."""
    plain = json.loads(content)
    result = TypeAdapter(STAGES[stage][1]).validate_python(plain["result"])
    return Measured(result, TypeAdapter(Figures).validate_python(plain["figures"]))
