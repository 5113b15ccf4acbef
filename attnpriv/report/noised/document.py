"""The report of an audit under ε: its figures, what they cost, and what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnpriv.audit.results import NotRun
from attnpriv.estimates import UNDEFINED, Estimate, to_plain
from attnpriv.report.chapters import FIGURES
from attnpriv.report.document import Report, RunFindings
from attnpriv.report.provenance import Machine
from attnpriv.verdicts import Claim, judge

if TYPE_CHECKING:
    from attnpriv.audit.comparison import Comparison
    from attnpriv.audit.coverage import DetectorCoverage

VERSION = "noised-1"
PUBLISHED = Path(__file__).parents[1] / "schema" / f"{VERSION}.json"
RELATION = (
    "add or remove one audited record, held-out or trained on; how many there are is public, and "
    "so are the model, and which records are of which kind"
)
FEW = (
    "it is measured on few records, drawn among those that hold personal data: noise that hides "
    "one of them would drown it"
)
LARGEST = "it is a largest value: one record decides it"
IMAGES = "it is of models that read images, which no audit under an ε measures"
LEFT_OUT = {
    "utility.macro_f1": "classes of few records would take too much of ε",
    "attention.heads": "every head by itself would take too much of ε",
    "attention.certificate.largest_weight": LARGEST,
    "attention.certificate.largest_weight_bound": "it is that of a single record",
    "attention.certificate.weight_ratio": LARGEST,
    "attention.certificate.mass_ratio": LARGEST,
    "attention.certificate.row_lift_bound": "it depends on the length of every record",
    "spatial_gates": IMAGES,
    "attribution": FEW,
    "conductance": FEW,
    "occlusion": FEW,
    "gradcam": IMAGES,
    "faithfulness": FEW,
    "sensitivity": FEW,
    "exposure": "it needs data with planted secrets, which are no records of people",
    "shadow_attacks": "an attack with shadow models is about single records",
    "canaries": "it needs the coins of the training, which are no records",
    "explanation_attacks": "its attack models are fitted to records, so that one moves all scores",
    "inversion": "its guessers are fitted to records, so that one moves what is read of others",
    "served": "it is about what a server answers, and its figures are exact",
    "memorisation": "it compares values across records, so that one record moves what others add",
    "robustness": "its radius is measured on all attacked records, so that one moves all",
    "pixel_attacks": IMAGES,
    "attention_attacks": FEW,
    "text_attacks": "it is measured on few records: noise that hides one of them would drown it",
    "certified": "it is measured where tokens are read one by one, and never under an ε",
    "checklist": "it reads invented texts alone, and no audited record: audit without --epsilon",
    "examples": "they are single records",
}
"""What has no bounded contribution a record, or too few records, and why it is left out."""
ALSO = {
    "p-values, nulls and controls": "they are drawn on the exact figures",
    "precision, recall and F1 by class, the confusion": LEFT_OUT["utility.macro_f1"],
    "lifts by layer, head, type and class": "they would take too much of ε",
    "shares at a false positive rate, the ROC curve": "one record decides their thresholds",
    "quality of the detector, types that were found": "they are counts by type",
    "SHA-256 of the records and of the runs": "guesses could be tested against them",
}
"""What else an audit without ε shows."""
CARD = ("private", "epsilon", "delta", "warnings", "encoder", "attention")
"""What the report repeats of a model card; the rest of it was computed without this ε."""

Tree = dict[str, Any]


@dataclass(frozen=True)
class Noise:
    """What the figures cost, and how the total was divided.

    Attributes:
        epsilon: of all figures of all runs together.
        delta: likewise; 0 for pure differential privacy.
        relation: which two sets of records are told apart no better than that.
        mechanism: of the noise.
        budget: what the shares are of: ρ or ε, in millionths.
        shares: of each sum, in those millionths.
        audits: how many audits were paid for into this folder, this one included.
        epsilon_of_all: of all of them together.
        delta_of_all: of all of them together.
    """

    epsilon: float
    delta: float
    relation: str
    mechanism: str
    budget: str
    shares: dict[str, int]
    audits: int
    epsilon_of_all: float
    delta_of_all: float


@dataclass(frozen=True)
class NoisedProvenance:
    """Which code and machine a report came from; nothing that was computed from the records."""

    attnpriv: str
    code_sha256: str
    python: str
    libraries: dict[str, str]
    machine: Machine
    data: str
    data_rows: int
    epsilon: float
    delta: float


@dataclass(frozen=True)
class NoisedResult:
    """The figures of one run, where an audit without ε has them, and why others are not there."""

    name: str
    card: Tree
    data_name: str
    held_out_rows: int
    utility: Tree
    attention: Tree
    flow: Tree
    spatial_gates: NotRun
    attribution: NotRun
    conductance: NotRun
    occlusion: NotRun
    gradcam: NotRun
    faithfulness: NotRun
    sensitivity: NotRun
    counterfactual: Tree
    memorisation: NotRun
    membership: Tree | NotRun
    exposure: NotRun
    shadow_attacks: NotRun
    canaries: NotRun
    explanation_attacks: NotRun
    inversion: NotRun
    served: NotRun
    robustness: NotRun
    pixel_attacks: NotRun
    attention_attacks: NotRun
    text_attacks: NotRun
    certified: NotRun
    checklist: NotRun
    examples: NotRun


@dataclass(frozen=True, kw_only=True)
class NoisedReport:
    """An audit of one or several runs under one ε.

    ``deviations`` has, for each run, the standard deviation of the noise on each figure.
    """

    results: tuple[NoisedResult, ...]
    deviations: tuple[dict[str, float | None], ...]
    comparisons: tuple[Comparison, ...]
    coverage: DetectorCoverage
    options: dict[str, Any]
    noise: Noise
    left_out: dict[str, str]
    findings: tuple[RunFindings, ...]
    provenance: NoisedProvenance
    schema_version: str = VERSION


AnyReport = Report | NoisedReport


def noised_text(report: NoisedReport) -> str:
    """``audit.json`` itself."""
    plain = to_plain(asdict(report))
    return f"{json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)}\n"


def make_result(
    name: str,
    card: Mapping[str, Any],
    data_name: str,
    rows: tuple[int, tuple[int, int] | None],
    figures: Mapping[str, Estimate],
    bounds: tuple[float | None, float],
    claim: Claim | None,
    no_membership: str | None,
) -> NoisedResult:
    """A run's figures at their places.

    Args:
        name: of the run.
        card: the model card.
        data_name: of the data.
        rows: held-out records; members and non-members, or None without the test.
        figures: by their paths.
        bounds: the clip of the logits, or None; the temperature.
        claim: of the run about its training records, if it has one.
        no_membership: why the membership test is left out, if it is.
    """
    held_out, groups = rows
    tree: Tree = {part: {} for part in ("utility", "attention", "flow", "counterfactual")}
    tree["utility"]["n"] = tree["attention"]["documents"] = held_out
    tree["counterfactual"]["documents"] = held_out
    clip, temperature = bounds
    tree["attention"]["certificate"] = {
        "logit_bound": clip, "temperature": temperature, "holds": None
    }  # fmt: skip
    if groups:
        tree["membership"] = {"members": groups[0], "non_members": groups[1]}
    for path, estimate in figures.items():
        _put(tree, path.replace("heads[*].", ""), estimate)
    if groups:
        allowed = None if claim is None else claim.auc
        tree["membership"]["judgement"] = judge(
            [("AUC", figures["membership.auc"], 0.5, allowed)], claim
        )
    reasons = LEFT_OUT if no_membership is None else LEFT_OUT | {"membership": no_membership}
    for path, reason in reasons.items():
        _put(tree, path, NotRun(reason))
    public = {key: card[key] for key in CARD if key in card}
    return NoisedResult(name=name, card=public, data_name=data_name, held_out_rows=held_out, **tree)


def _put(tree: Tree, path: str, value: Any) -> None:
    *above, last = path.split(".")
    for name in above:
        tree = tree.setdefault(name, {})
    tree[last] = value


def differences(
    ours: Mapping[str, Estimate], theirs: Mapping[str, Estimate]
) -> Iterator[tuple[str, Estimate, Estimate, Estimate]]:
    """Each figure of two runs with their difference, from nothing but the noised figures.

    The intervals do not know that both runs saw the same records, and so are wider than paired ones
    wherever the same records are hard for both.
    """
    for path, own in ours.items():
        figure = FIGURES.get(path)
        if figure is not None and figure.comparable and path in theirs:
            yield path, own, theirs[path], _less(own, theirs[path])


def _less(own: Estimate, other: Estimate) -> Estimate:
    ends = (own.value, own.low, own.high, other.value, other.low, other.high)
    if any(end is None for end in ends):
        return UNDEFINED
    value, low, high, their, their_low, their_high = (float(end or 0.0) for end in ends)
    apart = value - their
    below = ((value - low) ** 2 + (their_high - their) ** 2) ** 0.5
    above = ((high - value) ** 2 + (their - their_low) ** 2) ** 0.5
    return Estimate(apart, apart - below, apart + above)


def figure_of(result: NoisedResult, path: str) -> Estimate:
    """The figure of a run at a path."""
    found: Any = result
    for name in path.replace("heads[*].", "").split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert isinstance(found, Estimate)
    return found
