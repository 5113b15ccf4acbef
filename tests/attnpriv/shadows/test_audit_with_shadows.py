"""Audits with shadow models: what was overfitted is found, and what does not fit is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attnpriv.audit.leakage.shadow_folder import read_shadows
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.data import Dataset
from attnpriv.errors import InputError
from attnpriv.jobs import Executor, ProcessPool
from attnpriv.report import read_gates
from attnpriv.report.auditing import audit_into
from attnpriv.runs.folder import Run

SMALL = AuditOptions(
    documents=150, members=300, ig_documents=1, ig_steps=2, faithfulness_documents=1,
    sensitivity_documents=1, counterfactual_documents=2, memorisation_documents=2,
    pgd_documents=1, permutations=10, resamples=10, examples=1,
)  # fmt: skip
GATE = """
[[gate]]
name = "shadow models find nothing"
measure = "shadow_attacks.judgement.verdict"
operator = "one of"
verdicts = ["NOT FOUND"]
run = "frozen"
"""


@pytest.mark.parametrize(
    "executor", [None, pytest.param(ProcessPool(2), marks=pytest.mark.exhaustive)]
)
def test_a_run_that_overfits_is_found_in_the_report_and_by_a_gate(
    executor: Executor | None, frozen_run: Run, shadows: Path, tickets: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "gates.toml").write_text(GATE)
    answers = read_shadows(shadows)
    written = audit_into(
        tmp_path / "out",
        [frozen_run],
        tickets,
        None,
        SMALL,
        shadows=[answers],
        executor=executor,
    )
    (outcome,) = written.check(read_gates(tmp_path / "gates.toml"))
    assert (outcome.verdict, outcome.reason[:6]) == ("FAIL", "FOUND:")
    report = json.loads((tmp_path / "out" / "audit.json").read_bytes())
    assert report["provenance"]["shadows_sha256"] == [answers.sha256]
    found = report["results"][0]["shadow_attacks"]
    assert found["valid"]
    assert found["models"] == 8
    assert found["members"] + found["non_members"] + found["left_out"] == 300
    for name in ("loss", "lira", "lira_offline", "rmia", "rmia_offline"):
        assert found[name]["auc"]["low"] > 0.6
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Plot: ROC of attacks with shadow models on frozen" in page
    title = "Membership can be inferred with shadow models"
    assert title in page
    assert title in (tmp_path / "out" / "audit.sarif").read_text()


def test_shadow_models_that_do_not_fit_are_refused_in_one_line(
    command: Callable[..., Any], frozen_run: Run, shadows: Path, tiny_run: Path, tmp_path: Path
) -> None:
    def refused(expected: str, run: Path, *arguments: object) -> None:
        data = ("--data", "tickets:rows=300", "--out", tmp_path / "out")
        done = command("audit", run, *data, "--shadows", *arguments)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert expected in done.err
        assert not (tmp_path / "out").exists()

    refused("those of a run called frozen with other weights", tiny_run, shadows)
    twice = (shadows, "--shadows", shadows)
    refused("one folder of shadow models of frozen, got two", frozen_run.path, *twice)
    refused("a folder of attnpriv shadows", tiny_run, tmp_path)
    refused("--shadows cannot be used with --epsilon", tiny_run, shadows, "--epsilon", 1)


def test_shadow_models_of_other_data_or_rows_are_refused(
    frozen_run: Run, shadows: Path, tickets: Dataset
) -> None:
    answers = read_shadows(shadows)
    short = replace(answers, log_odds=answers.log_odds[:, 1:], inside=answers.inside[:, 1:])
    for data, of_run in ((tickets, short), (tickets.subset(range(299)), answers)):
        with pytest.raises(InputError, match="frozen, which were trained on other data"):
            audit_runs([frozen_run], data, None, SMALL, shadows=[of_run])
