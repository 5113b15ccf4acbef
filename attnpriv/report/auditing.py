"""An audit from its inputs to its files, for whoever asks for one: the command and the study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Generic, TypeVar

from attnpriv.audit.checklist.files import Checklist, default_checklist
from attnpriv.audit.leakage.served import ServedAnswers
from attnpriv.audit.leakage.shadow_folder import ShadowModels
from attnpriv.audit.runner import audit_runs
from attnpriv.audit.subject import AuditOptions
from attnpriv.audit.work import open_audit_folder
from attnpriv.audit.workers import StageProgress
from attnpriv.data.records import Dataset
from attnpriv.jobs import Executor
from attnpriv.jobs.threads import one_thread
from attnpriv.report.document import Report, make_report
from attnpriv.report.gates import Gate, Outcome, check_gates
from attnpriv.report.noised.document import NoisedReport
from attnpriv.report.provenance import Provenance, provenance
from attnpriv.report.reading import as_report, read_report
from attnpriv.report.writer import HTML_NAME, JSON_NAME, write_checks, write_report
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector

Kind = TypeVar("Kind", Report, NoisedReport)


@dataclass(frozen=True)
class Written(Generic[Kind]):
    """An audit whose report is in a folder.

    Attributes:
        report: the audit, what it means, and where its figures come from.
        folder: where its files are.
        include_text: whether words of records may stand in them.
    """

    report: Kind
    folder: Path
    include_text: bool

    def check(
        self, gates: Sequence[Gate], gates_file: PurePath | None = None
    ) -> tuple[Outcome, ...]:
        """Check gates, show their outcomes on the page, and write what CI reads.

        Raises:
            InputError: a gate asks for what the report does not have, or the folder cannot be
                written.
        """
        outcomes = check_gates(read_report(self.folder / JSON_NAME), gates)
        if outcomes:
            write_report(self.report, self.folder, self.include_text, outcomes)
        write_checks(self.report, self.folder, outcomes, gates_file)
        return outcomes


def audit_into(
    folder: Path,
    runs: Sequence[Run],
    data: Dataset,
    detector: Detector | None,
    options: AuditOptions,
    progress: StageProgress | None = None,
    *,
    shadows: Sequence[ShadowModels] = (),
    checklist: Checklist | None = None,
    answers: Sequence[ServedAnswers] = (),
    resume: bool | None = False,
    executor: Executor | None = None,
    include_text: bool = False,
) -> Written[Report]:
    """Audit runs and write ``audit.json`` and ``report.html`` into a folder.

    What is finished of the audit is kept in the folder until the report is written, so that an
    interrupted audit can go on.

    Args:
        folder: made if it is missing.
        runs: at least one; the others are compared with the first.
        data: labelled rows, with gold spans or without.
        detector: finds personal data where the data has no gold spans.
        options: how much to measure.
        progress: called with a stage's name, the number done and the total.
        shadows: as in ``audit_runs``.
        checklist: likewise.
        answers: as in ``audit_runs``.
        resume: True goes on with the unfinished audit in the folder and raises if there is none;
            False raises if there is one; None goes on with one of the same inputs and throws any
            other away.
        executor: where the work is done; None: in this process. The results are the same bits.
        include_text: also show the words of the example documents that are not marked as personal
            data; see ``write_report``.

    Raises:
        InputError: the audit is not possible with these inputs, ``resume`` does not fit what is in
            the folder, or the folder cannot be written.
    """
    origin = provenance_of(runs, data, shadows, answers)
    tests = (checklist or default_checklist()).sha256
    identity = {**asdict(origin), **asdict(options), "checklist": tests}
    with open_audit_folder(folder, identity, resume=resume) as work:
        audit = audit_runs(
            runs,
            data,
            detector,
            options,
            progress,
            shadows=shadows,
            checklist=checklist,
            answers=answers,
            work=work,
            executor=executor,
        )
        report = make_report(audit, origin)
        write_report(report, folder, include_text)
    return Written(report, folder, include_text)


def provenance_of(
    runs: Sequence[Run],
    data: Dataset,
    shadows: Sequence[ShadowModels] = (),
    answers: Sequence[ServedAnswers] = (),
) -> Provenance:
    """The provenance of an audit made now."""
    with one_thread():  # as the audit computes
        return provenance(runs, data, shadows, answers)


def finished(folder: Path, origin: Provenance) -> Report | None:
    """The report in a folder, if it is complete and its figures have this origin."""
    if not ((folder / JSON_NAME).exists() and (folder / HTML_NAME).exists()):
        return None  # they are written in this order
    plain = read_report(folder / JSON_NAME)
    same = plain["provenance"] == json.loads(json.dumps(asdict(origin)))
    report = as_report(plain)
    return report if same and isinstance(report, Report) else None
