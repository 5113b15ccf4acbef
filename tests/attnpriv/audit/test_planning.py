"""Sizes for a given time, measures that are left out, and what more time would buy."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from attnpriv.audit.measures import ALONE, SKIPPABLE, check_skipped
from attnpriv.audit.planning import SIZES, kept_options, plan, sizes_in_words
from attnpriv.audit.runner import audit_runs
from attnpriv.audit.subject import SKIPPED, AuditOptions, Subject, choose_rows
from attnpriv.audit.tasks import expected_passes
from attnpriv.audit.work import open_audit_folder
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.estimates import UNDEFINED, Estimate
from attnpriv.report.chapters.more_time import half_width
from attnpriv.runs.folder import Run, load_run

QUICK = AuditOptions.at("quick")


@pytest.fixture(scope="module")
def run(tiny_run: Path) -> Run:
    return load_run(tiny_run)


def test_more_time_buys_more_records_until_there_are_no_more(run: Run, tickets: Dataset) -> None:
    none, plenty = (plan([run], tickets, QUICK, minutes) for minutes in (1e-6, 1e5))
    assert {getattr(none.options, name) for name in SIZES} == {16}
    assert (none.all_records, plenty.all_records) == (False, True)
    assert plenty.options.members >= 240
    same = {name for name in asdict(QUICK) if name not in (*SIZES, "budget_minutes")}
    for found in (none.options, plenty.options):
        assert {name: asdict(found)[name] for name in same} == {
            name: asdict(QUICK)[name] for name in same
        }
    assert plenty.options.budget_minutes == 1e5
    assert sizes_in_words(none.options).startswith("documents: 16, members: 16")


def test_what_is_planned_for_takes_about_the_time(run: Run, tickets: Dataset) -> None:
    """Passes are counted, so that no clock is asked but for one pass."""
    whole = plan([run], tickets, QUICK, 1e5)
    minutes = whole.other_minutes + 0.5 * whole.leakage_minutes
    found = plan([run], tickets, QUICK, minutes)
    # Another call times the passes anew, so the machine's moods are in the sizes.
    assert 16 <= found.options.explanation_documents <= whole.options.explanation_documents
    with pytest.raises(InputError, match="expected budget minutes > 0, got -1"):
        plan([run], tickets, QUICK, -1)


def test_what_is_skipped_is_not_run_and_counts_for_nothing(run: Run, tickets: Dataset) -> None:
    options = AuditOptions.at("quick", skip=("inversion", "explanation_attacks"))
    spans = dict(enumerate(tickets.regions))
    rows = choose_rows(run, tickets, options)
    all_of_it, without = (Subject(run, tickets, rows, spans, each) for each in (QUICK, options))
    needs = {each.name: each.needs for each in ALONE}
    assert without.not_run("inversion", needs["inversion"]) == SKIPPED
    assert all_of_it.not_run("inversion", needs["inversion"]) is None
    left_out = {*expected_passes(all_of_it)} - {*expected_passes(without)}
    assert left_out == {"inversion", "explanation_attacks"}


def test_only_what_a_report_can_do_without_is_skipped(run: Run, tickets: Dataset) -> None:
    assert {"membership", "explanation_attacks", "inversion"} < {*SKIPPABLE}
    assert {"utility", "examples"}.isdisjoint(SKIPPABLE)
    with pytest.raises(InputError, match="expected measures to skip among .*, got utility"):
        check_skipped(["utility"])
    with pytest.raises(InputError, match="got magic"):
        audit_runs([run], tickets, options=AuditOptions(skip=("magic",)))


def test_an_interrupted_audit_keeps_its_sizes(tmp_path) -> None:
    options = AuditOptions.at("quick", skip=("inversion",), budget_minutes=2.5, members=77)
    assert kept_options(tmp_path) is None
    with (
        pytest.raises(KeyboardInterrupt),
        open_audit_folder(tmp_path, asdict(options), resume=False) as work,
    ):
        work.write("0-piece", b"")
        raise KeyboardInterrupt
    assert kept_options(tmp_path) == options
    assert json.loads(json.dumps(asdict(options)))["skip"] == ["inversion"]


def test_an_interval_falls_with_the_square_root_of_the_time() -> None:
    assert half_width(Estimate(0.6, 0.5, 0.7), 1) == pytest.approx(0.1)
    assert half_width(Estimate(0.6, 0.5, 0.7), 4) == pytest.approx(0.05)
    assert half_width(UNDEFINED, 2) is None
