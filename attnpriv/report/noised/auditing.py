"""An audit under ε from its inputs to its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attnpriv.audit.comparison import Comparison, PairedDifference
from attnpriv.audit.coverage import GOLD, DetectorCoverage
from attnpriv.audit.leakage.claims import claim_of
from attnpriv.audit.noised import NoisedFigure
from attnpriv.audit.noising import Audited, exact_sums
from attnpriv.audit.releases import NoisedSums, Releases, audit_id, private_folder
from attnpriv.audit.subject import AuditOptions
from attnpriv.audit.work import NAME as WORK_NAME
from attnpriv.audit.work import open_audit_folder
from attnpriv.audit.workers import StageProgress
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.jobs import Executor
from attnpriv.release.cost import MICRO
from attnpriv.release.sums import NoisePlan, plan
from attnpriv.report.auditing import Written, provenance_of
from attnpriv.report.document import RunFindings
from attnpriv.report.noised.document import (
    ALSO,
    LEFT_OUT,
    RELATION,
    Noise,
    NoisedProvenance,
    NoisedReport,
    differences,
    make_result,
)
from attnpriv.report.noised.findings import noised_findings
from attnpriv.report.provenance import Provenance
from attnpriv.report.writer import write_report
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector
from attnpriv.verdicts import Claim

Estimates = dict[str, Estimate]
BUDGETS = {"discrete Gaussian": "ρ", "discrete Laplace": "ε"}


@dataclass(frozen=True)
class Inputs:
    """What an audit is made from, and what may be told of it."""

    audited: Audited
    claims: tuple[Claim | None, ...]
    data: Dataset
    detector: Detector | None
    origin: Provenance
    plan: NoisePlan


def noised_audit_into(
    folder: Path,
    runs: Sequence[Run],
    data: Dataset,
    detector: Detector | None,
    options: AuditOptions,
    epsilon: float,
    delta: float | None = None,
    progress: StageProgress | None = None,
    *,
    resume: bool | None = False,
    executor: Executor | None = None,
) -> Written[NoisedReport]:
    """Audit runs under one ε and write the report into a folder.

    What the audit computes on the way is exact, and is kept in ``private_folder(folder)`` until it
    is finished. The same audit into the same folder gets the noise that it got before.

    Args:
        folder: made if it is missing.
        runs: at least one; the others are compared with the first.
        data: labelled rows, with gold spans or without.
        detector: finds personal data where the data has no gold spans.
        options: how much to measure.
        epsilon: of all figures of all runs together.
        delta: likewise, below one in as many as there are records; None takes N^-1.1, and 0 asks
            for pure differential privacy.
        progress: called with a stage's name, the number done and the total.
        resume: as in ``audit_into``.
        executor: as in ``audit_into``.

    Raises:
        InputError: as ``audit_into``; ε or δ is out of range; the folder holds the pieces of an
            audit without ε; OpenDP is not installed.
    """
    if not runs:
        raise InputError("expected at least one run folder to audit, got none")
    _refuse_exact(folder)
    audited = Audited.of(runs, data, options)
    sums = [each for layout in audited.layouts for each in layout.sums()]
    made = plan(sums, epsilon, _delta(audited, delta))
    origin = provenance_of(runs, data)
    claims = tuple(claim_of(run) for run in runs)  # before anything is paid: it may be refused
    inputs = Inputs(audited, claims, data, detector, origin, made)
    identity = {**asdict(origin), **asdict(audited.options), "epsilon": epsilon, "delta": delta}
    noised, releases = _release(folder, inputs, identity, progress, resume, executor)
    report = _report(inputs, noised, releases)
    write_report(report, folder)
    return Written(report, folder, False)


def _refuse_exact(folder: Path) -> None:
    if (folder / WORK_NAME).exists():
        raise InputError(
            f"{folder / WORK_NAME} holds exact pieces of an unfinished audit without --epsilon: "
            "finish it with --resume, or remove that folder"
        )


def _delta(audited: Audited, delta: float | None) -> float:
    """The δ, which is below one in as many as there are records of the largest group."""
    records = max(max(each.held_out, *(each.groups or (0,))) for each in audited.layouts)
    if delta is None:
        return float(records**-1.1) if records > 1 else 0.0
    if not 0 <= delta < 1 / records:
        raise InputError(
            f"expected delta from 0 to below 1/{records}, one in the number of records, got {delta}"
        )
    return delta


def _release(
    folder: Path,
    inputs: Inputs,
    identity: Mapping[str, Any],
    progress: StageProgress | None,
    resume: bool | None,
    executor: Executor | None,
) -> tuple[NoisedSums, Releases]:
    """The noised sums: those of the same audit before, or new ones that are paid for."""
    private, audit, made = private_folder(folder), audit_id(identity), inputs.plan
    releases = Releases(private)
    if noised := releases.released(audit):
        return noised, releases
    with open_audit_folder(private, identity, resume=resume) as work:
        private.chmod(0o700)
        releases = Releases(private)  # now that nobody else writes to them
        if noised := releases.released(audit):
            return noised, releases
        exact = exact_sums(
            inputs.audited, inputs.data, inputs.detector, progress, work=work, executor=executor
        )
        releases.pay(audit, made.micro_epsilon, made.delta)
        noised = made.add(exact)
        releases.keep(noised)
    return noised, releases


def _report(inputs: Inputs, noised: NoisedSums, releases: Releases) -> NoisedReport:
    audited, made = inputs.audited, inputs.plan
    figures = [layout.figures(made, noised) for layout in audited.layouts]
    results = tuple(_result(inputs, number, own) for number, own in enumerate(figures))
    return NoisedReport(
        results=results,
        deviations=tuple({path: each.noise for path, each in own.items()} for own in figures),
        comparisons=tuple(_comparisons(audited, figures)),
        coverage=_coverage(inputs),
        options=_options(audited.options),
        noise=_noise(made, releases),
        left_out={**LEFT_OUT, **ALSO},
        findings=tuple(RunFindings(each.name, noised_findings(each)) for each in results),
        provenance=_provenance(inputs),
    )


def _result(inputs: Inputs, number: int, figures: Mapping[str, NoisedFigure]) -> Any:
    run, layout = inputs.audited.runs[number], inputs.audited.layouts[number]
    attention = run.model.config.attention
    clip = None if attention.clip is None else attention.logit_bound
    return make_result(
        run.name,
        run.card.as_written,
        inputs.data.name,
        (layout.held_out, layout.groups),
        _estimates(figures),
        (clip, attention.smallest_temperature),
        inputs.claims[number],
        inputs.audited.no_membership(number),
    )


def _estimates(figures: Mapping[str, NoisedFigure]) -> Estimates:
    return {path: each.estimate for path, each in figures.items()}


def _comparisons(
    audited: Audited, figures: Sequence[Mapping[str, NoisedFigure]]
) -> list[Comparison]:
    first, others = audited.runs[0], list(zip(audited.runs, audited.rows, figures, strict=True))[1:]
    return [
        Comparison(run.name, first.name, UNDEFINED, (), "their held-out rows differ")
        if rows.held_out != audited.rows[0].held_out
        else Comparison(run.name, first.name, UNDEFINED, _differences(own, figures[0], rows), None)
        for run, rows, own in others
    ]


def _differences(
    own: Mapping[str, NoisedFigure], other: Mapping[str, NoisedFigure], rows: Any
) -> tuple[PairedDifference, ...]:
    return tuple(
        PairedDifference(path, ours.value, theirs.value, apart, len(rows.held_out))
        for path, ours, theirs, apart in differences(_estimates(own), _estimates(other))
    )


def _coverage(inputs: Inputs) -> DetectorCoverage:
    """Who marked the personal data; which types occur, and how well it is found, is not told."""
    detector = inputs.detector
    unseen = () if detector is None else detector.cannot_see
    if inputs.data.regions is not None or detector is None:
        return DetectorCoverage(GOLD, (), unseen, None)
    return DetectorCoverage(detector.name, detector.entity_types, unseen, None)


def _options(options: AuditOptions) -> dict[str, Any]:
    """Those that anything here depends on."""
    return {name: getattr(options, name) for name in ("depth", "documents", "members", "seed")}


def _noise(made: NoisePlan, releases: Releases) -> Noise:
    audits, micro, delta = releases.total
    prices = zip(made.sums, made.prices, strict=True)
    return Noise(
        epsilon=made.micro_epsilon / MICRO,
        delta=made.delta,
        relation=RELATION,
        mechanism=made.mechanism,
        budget=BUDGETS[made.mechanism],
        shares={each.name: price.micro for each, price in prices},
        audits=audits,
        epsilon_of_all=micro / MICRO,
        delta_of_all=delta,
    )


def _provenance(inputs: Inputs) -> NoisedProvenance:
    origin = inputs.origin
    return NoisedProvenance(
        attnpriv=origin.attnpriv,
        code_sha256=origin.code_sha256,
        python=origin.python,
        libraries={**origin.libraries, "opendp": version("opendp")},
        machine=origin.machine,
        data=origin.data,
        data_rows=origin.data_rows,
        epsilon=inputs.plan.micro_epsilon / MICRO,
        delta=inputs.plan.delta,
    )
