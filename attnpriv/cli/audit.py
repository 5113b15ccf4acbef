"""``attnpriv audit``: what models make of personal data, and what they give away."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from attnpriv.cli import options
from attnpriv.cli.gate import outcome_lines
from attnpriv.cli.output import console, resumable, warn, warn_of_unknown
from attnpriv.command import complain
from attnpriv.config import Depth
from attnpriv.errors import InputError
from attnpriv.progress import stage_bars

if TYPE_CHECKING:
    from attnpriv.audit.subject import AuditOptions
    from attnpriv.data import Dataset
    from attnpriv.report.auditing import Written
    from attnpriv.report.document import Report
    from attnpriv.report.noised.document import AnyReport, NoisedReport
    from attnpriv.runs.folder import Run


def audit(
    run: options.Run,
    data: options.Data,
    out: Annotated[
        Path,
        typer.Option(
            help="Folder to write the report to, for people and for CI.",
            rich_help_panel=options.OUTPUT,
        ),
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option(
            help="Another run folder to audit on the same rows and compare with; may be repeated.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    shadows: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of attnpriv shadows with shadow models of an audited run, for stronger "
            "membership attacks; may be repeated, once for each run.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    checklist: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of behavioural tests: templates whose slots must not change the answer "
            "(docs/audit.md). Default: tests of short messages that come with attnpriv.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(
            help="File that attnpriv-client audit --out wrote about a server of an audited run: "
            "the report puts what answers give away beside what the run folder does; may be "
            "repeated, once for each run.",
            rich_help_panel=options.MODEL,
        ),
    ] = None,
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    spans_column: options.SpansColumn = None,
    depth: Annotated[
        Depth,
        typer.Option(
            help="How much to measure: quick takes smaller samples and so gives wider intervals, "
            "thorough takes larger ones. The report lists the sample sizes."
        ),
    ] = "standard",
    documents: Annotated[
        int | None,
        typer.Option(
            help="Most held-out rows to audit. Default: 200, 1200 or 5000, by the depth.",
            rich_help_panel=options.DATA,
        ),
    ] = None,
    budget_minutes: Annotated[
        float | None,
        typer.Option(
            help="About how long the audit may take: the leakage measures get the sizes that fit "
            "in, and so the best intervals. Default: the sizes of the depth, however long."
        ),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            help="A measure to leave out, such as explanation_attacks or inversion; may be "
            "repeated."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of samples, null distributions and bootstraps.")
    ] = 0,
    processes: options.ProcessCount = None,
    on: options.On = None,
    gates: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of limits that the audit must keep (docs/gates.md). Exit code 1 if one "
            "is broken, 2 if one cannot be decided.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    detection: options.Detection = None,
    include_text: Annotated[
        bool,
        typer.Option(
            "--include-text",
            help="Show the words of some audited texts in the report; personal data stays hidden.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Noise all figures, so that the report tells about any one audited record no more "
            "than this ε allows; what cannot be noised is left out. Needs the extra noise. "
            "Default: exact figures.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    delta: Annotated[
        float | None,
        typer.Option(
            help="δ of the noise, below one in the number of records; 0 for pure differential "
            "privacy. Default: the number of records to the power of -1.1.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    resume: options.Resume = False,
    json_: options.Json = False,
) -> None:
    """Audit a run by attack: what it makes of personal data, and what it gives away.

    Measures accuracy, attention, attributions, the effect of swapping personal data, membership
    inference and robustness, and writes a report. With --shadows it also runs LiRA and RMIA; with
    --answers it shows what a server's answers give away beside what the model does.
    """
    from attnpriv.audit.checklist.files import load_checklist
    from attnpriv.audit.leakage.served import read_answers
    from attnpriv.audit.leakage.shadow_folder import read_shadows
    from attnpriv.audit.measures import check_skipped
    from attnpriv.audit.planning import kept_options
    from attnpriv.audit.releases import private_folder
    from attnpriv.audit.subject import AuditOptions
    from attnpriv.audit.work import has_begun
    from attnpriv.data import load_dataset
    from attnpriv.report import exit_code, read_gates
    from attnpriv.report.auditing import audit_into
    from attnpriv.report.noised.auditing import noised_audit_into
    from attnpriv.report.writer import HTML_NAME, JSON_NAME
    from attnpriv.runs.folder import load_run
    from attnpriv.sensitive import PresidioDetector, load_rules

    _check_noise(epsilon, delta, include_text, shadows, answers)
    if epsilon is not None and checklist is not None:
        raise InputError("--checklist cannot be used with --epsilon: it is left out there")
    if epsilon is not None and (budget_minutes is not None or skip):
        raise InputError("--budget-minutes and --skip cannot be used with --epsilon")
    executor = options.executor_of(processes, on)
    check_skipped(skip or ())
    chosen = {"seed": seed, "skip": tuple(skip or ())}
    if documents is not None:
        chosen["documents"] = documents
    limits = () if gates is None else read_gates(gates)
    rules = None if detection is None else load_rules(detection)
    loaded = [load_run(path) for path in (run, *(against or []))]
    tests = None if checklist is None else load_checklist(checklist)
    of_runs = [read_shadows(path) for path in shadows or []]
    of_servers = [read_answers(path) for path in answers or []]
    dataset = load_dataset(
        data,
        text_column=text_column,
        label_column=label_column,
        spans_column=spans_column,
        label_names=loaded[0].label_names,
        kind=loaded[0].kind,
    )
    if epsilon is None:  # these warnings are exact counts
        _warn(loaded, dataset)
    detector, how_much = PresidioDetector(rules), AuditOptions.at(depth, **chosen)
    if budget_minutes is not None:
        how_much = (kept_options(out) if resume else None) or _planned(
            loaded, dataset, how_much, budget_minutes, processes or 1
        )
    begun = out if epsilon is None else private_folder(out)
    written: Written[Report] | Written[NoisedReport]
    with resumable(lambda: has_begun(begun)), stage_bars() as progress:
        if epsilon is None:
            written = audit_into(
                out,
                loaded,
                dataset,
                detector,
                how_much,
                progress,
                shadows=of_runs,
                checklist=tests,
                answers=of_servers,
                resume=resume,
                executor=executor,
                include_text=include_text,
            )
        else:
            written = noised_audit_into(
                out,
                loaded,
                dataset,
                detector,
                how_much,
                epsilon,
                delta,
                progress,
                resume=resume,
                executor=executor,
            )
    outcomes = written.check(limits, gates)  # the report stays, whatever a gate may ask in vain
    if json_:
        sys.stdout.write((out / JSON_NAME).read_text(encoding="utf-8"))
        raise typer.Exit(exit_code(outcomes))
    _print(written.report, dataset.name)
    console.print(f"report: {out / HTML_NAME}\ndata:   {out / JSON_NAME}", soft_wrap=True)
    sys.stdout.write(outcome_lines(outcomes))
    raise typer.Exit(exit_code(outcomes))


def _planned(
    runs: list[Run], data: Dataset, options: AuditOptions, minutes: float, processes: int
) -> AuditOptions:
    """The options whose audit takes about so long; what they are, on stderr."""
    from attnpriv.audit.planning import plan, sizes_in_words

    found = plan(runs, data, options, minutes, processes)
    complain(
        f"planned for {minutes:g} minutes, at {found.milliseconds:.2g} ms a pass: leakage "
        f"{found.leakage_minutes:.2g}, the other measures {found.other_minutes:.2g}; "
        f"{sizes_in_words(found.options)}"
    )
    if found.other_minutes >= minutes:
        warn("the other measures take all of this time: choose a smaller --depth, or --skip some")
    return found.options


def _check_noise(
    epsilon: float | None,
    delta: float | None,
    include_text: bool,
    shadows: list[Path] | None,
    answers: list[Path] | None,
) -> None:
    """Raise InputError where options contradict each other."""
    if epsilon is None and delta is not None:
        raise InputError("--delta needs --epsilon")
    if epsilon is not None and include_text:
        raise InputError("--include-text cannot be used with --epsilon: words cannot be noised")
    if epsilon is not None and shadows:
        raise InputError("--shadows cannot be used with --epsilon: its attacks are not noised")
    if epsilon is not None and answers:
        raise InputError("--answers cannot be used with --epsilon: its figures are not noised")


def _warn(runs: list[Run], dataset: Dataset) -> None:
    for each in runs:
        if left_out := len(each.split(dataset).unknown):
            warn(
                f"{dataset.name} is not the training data of {each.name}: {left_out} rows are left "
                "out because they may have been trained on"
            )
        warn_of_unknown(each, dataset)


def _print(result: AnyReport, data_name: str) -> None:
    from attnpriv.report import headline

    columns, rows = headline(result)
    table = Table(*columns, title=f"{data_name}, held-out rows")
    for row in rows:
        table.add_row(*row)
    console.print(table)
