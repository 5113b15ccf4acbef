"""An audit of run folders whose figures are noised before anybody sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from attnpriv.audit.comparison import Compared
from attnpriv.audit.coverage import detect, gold
from attnpriv.audit.figures import Figures
from attnpriv.audit.measures import APART, OF_THE_PASS
from attnpriv.audit.noised import Layout
from attnpriv.audit.runner import check_inputs, passes, readable
from attnpriv.audit.subject import Answers, AuditOptions, Pass, Rows, Subject, choose_rows
from attnpriv.audit.tasks import ATTENTION, MEMBERS, Task, measure, parse
from attnpriv.audit.workers import StageProgress, Workers, workers
from attnpriv.data.records import Dataset
from attnpriv.data.splits import tells_rows_apart
from attnpriv.errors import InputError
from attnpriv.jobs import Executor
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import Run
from attnpriv.sensitive import Detector
from attnpriv.work_folder import WorkFolder

STAGES = (ATTENTION, MEMBERS, APART.name)
NO_MEMBERS = "this is not the data trained on, so no row is known to be a member"
REPEATED = "the training did not split by text, so that a held-out text may also be a training row"


@dataclass(frozen=True)
class Audited:
    """What is public of an audit before it is made.

    Attributes:
        runs: the run folders.
        rows: that each of them is audited on.
        layouts: one a run.
        options: how much is measured.
    """

    runs: tuple[Run, ...]
    rows: tuple[Rows, ...]
    layouts: tuple[Layout, ...]
    options: AuditOptions

    @classmethod
    def of(cls, runs: Sequence[Run], data: Dataset, options: AuditOptions) -> Audited:
        """What an audit of these runs on this data looks at.

        Raises:
            InputError: of other data, no row is known not to have been trained on; or a run reads
                tokens one by one.
        """
        for run in runs:
            if run.kind != "text":
                raise InputError(
                    f"{run.name} reads {run.kind}s, which an audit under an epsilon cannot "
                    "measure: audit it without --epsilon"
                )
            if run.model.config.isolated:
                raise InputError(
                    f"{run.name} reads tokens one by one (encoder words), which an audit under an "
                    "epsilon cannot measure: audit it without --epsilon"
                )
        # Nulls and bootstraps would be drawn from the exact figures, so none is.
        options = replace(options, permutations=1, resamples=1)
        rows = tuple(choose_rows(run, data, options) for run in runs)
        layouts = (
            Layout(number, len(own.held_out), len(data.label_names), _groups(run, own))
            for number, (run, own) in enumerate(zip(runs, rows, strict=True))
        )
        return cls(tuple(runs), rows, tuple(layouts), options)

    def no_membership(self, run: int) -> str | None:
        """Why a run's membership test is left out; None where it is not."""
        if self.layouts[run].groups:
            return None
        return NO_MEMBERS if self.rows[run].members is None else REPEATED


def _groups(run: Run, rows: Rows) -> tuple[int, int] | None:
    """Members and non-members; whether there is a test depends on no single record."""
    if rows.members is None or not tells_rows_apart(run.card.data.split):
        return None
    return len(rows.members), len(rows.held_out)


def exact_sums(
    audited: Audited,
    data: Dataset,
    detector: Detector | None,
    progress: StageProgress | None = None,
    *,
    work: WorkFolder | None = None,
    executor: Executor | None = None,
) -> dict[str, list[int]]:
    """What the records add up to, which is secret: for ``NoisePlan.add`` and nothing else.

    Args:
        audited: the runs and their rows.
        data: labelled rows.
        detector: finds personal data where the data has no gold spans.
        progress: as in ``audit_runs``.
        work: as in ``audit_runs``; what it keeps is exact, and so as secret.
        executor: as in ``audit_runs``.

    Raises:
        InputError: the runs and the data do not fit.
    """
    report = progress or (lambda stage, done, total: None)
    check_inputs(audited.runs, data, detector)
    wanted = detector if data.regions is None else None
    found = detect(data, audited.rows, wanted, partial(report, "finding personal data"))
    spans = found if data.regions is None else gold(data, audited.rows)
    subjects = [
        Subject(run, data, rows, spans, audited.options)
        for run, rows in zip(audited.runs, audited.rows, strict=True)
    ]
    sums: dict[str, list[int]] = {}
    with one_thread(), workers(subjects, executor, work, report, STAGES) as crew:
        passed = passes(crew, subjects, None)
        swapped = _swapped(crew, passed)
        for layout, subject, own, swaps in zip(
            audited.layouts, subjects, passed, swapped, strict=True
        ):
            figures = _figures(subject, own) | swaps
            compared = Compared.of(subject, own, figures)
            sums |= layout.exact(compared, subject.documents.data.labels)
    return sums


def _figures(subject: Subject, passed: Pass) -> Figures:
    """Of the measures that read the pass over the documents, and show no single ones."""
    figures: Figures = {}
    for each in OF_THE_PASS:
        if not each.explains and not subject.lack(each.needs):
            figures |= measure(each, subject, passed, lambda done, total: None).figures
    return figures


def _swapped(crew: Workers, passed: Sequence[Pass]) -> list[Figures]:
    tasks = [
        Task(number, APART.name, answers=Answers(own.held_out, own.members))
        for number, own in enumerate(passed)
    ]
    found: dict[int, Figures] = {}
    for task, content in crew.results(tasks):
        with readable(task):
            found[task.subject] = parse(task.stage, content).figures
    return [found[number] for number in range(len(passed))]
