"""The example for GitHub Actions: its gates on a real audit, its commands on the real command."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from attnpriv.audit.results import Audit
from attnpriv.cli import app
from attnpriv.errors import InputError
from attnpriv.report import check_gates, read_gates
from attnpriv.report.document import make_report, report_text

EXAMPLE = Path(__file__).parents[3] / "examples" / "github-actions"
GUIDE = Path(__file__).parents[3] / "docs" / "gates.md"


def test_every_example_gate_is_judged_on_a_real_audit(real_audit: Audit) -> None:
    gates = read_gates(EXAMPLE / "gates.toml")
    report = report_text(make_report(real_audit, None)).replace('"tiny"', '"plain"')
    outcomes = check_gates(json.loads(report), gates)
    verdicts = {outcome.gate.name: outcome.verdict for outcome in outcomes}
    assert len(verdicts) == len(gates)
    # What a card and a proof say holds for any audit of these models.
    assert verdicts["ε is at most 3"] == "PASS"
    assert verdicts["one token never takes all attention"] == "PASS"
    # 40 members are not the 500 that it asks for.
    assert verdicts["members cannot be told from others"] == "INCONCLUSIVE"


def test_the_gates_of_the_guide_can_be_read(tmp_path: Path, real_audit: Audit) -> None:
    report = json.loads(report_text(make_report(real_audit, None)).replace('"tiny"', '"plain"'))
    blocks = GUIDE.read_text(encoding="utf-8").split("```toml\n")[1:]
    assert len(blocks) == 4
    for block in blocks:
        text = block.partition("```")[0]
        if "run" not in tomllib.loads(text)["gate"][0]:
            text += 'run = "private"\n'
        (tmp_path / "gates.toml").write_text(text, encoding="utf-8")
        gates = read_gates(tmp_path / "gates.toml")
        if any(gate.measure.startswith("certified.") for gate in gates):
            with pytest.raises(
                InputError, match="certified was not computed"
            ):  # these runs have no such answers
                check_gates(report, gates)
        else:
            check_gates(report, gates)


@pytest.fixture
def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((EXAMPLE / "audit.yml").read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = workflow["jobs"]["audit"]["steps"]
    return found


def test_the_commands_of_the_workflow_are_commands(steps: list[dict[str, Any]]) -> None:
    (line,) = [step["run"] for step in steps if step.get("run", "").startswith("attnpriv ")]
    _, name, *arguments = shlex.split(line)
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    parsed = command.make_context(name, arguments).params
    assert str(parsed["gates"]) == "gates.toml"
    assert [str(path) for path in (parsed["run"], *parsed["against"])] == [
        "runs/plain", "runs/private",
    ]  # fmt: skip


def test_the_workflow_takes_up_files_that_an_audit_writes(steps: list[dict[str, Any]]) -> None:
    text = json.dumps(steps)
    for name in ("audit/summary.md", "audit/audit.sarif"):
        assert name in text
    after = steps[next(i for i, step in enumerate(steps) if "audit " in step.get("run", "")) + 1 :]
    assert [step["if"] for step in after] == ["${{ !cancelled() }}"] * 3
