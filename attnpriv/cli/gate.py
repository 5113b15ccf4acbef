"""``attnpriv gate``: does a report keep its limits?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnpriv.cli.options import JsonOption
from attnpriv.cli.output import print_json

if TYPE_CHECKING:
    from attnpriv.report.gates import Outcome


def gate(
    report: Annotated[Path, typer.Argument(help="audit.json, written by attnpriv audit.")],
    gates: Annotated[Path, typer.Argument(help="gates.toml; see docs/gates.md.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for JUnit XML, SARIF and a Markdown summary; default: none."),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check a report against gates; exit code 1 where one failed, 2 where one is inconclusive."""
    from attnpriv.report import check_gates, exit_code, read_gates, read_report, write_checks

    limits, measured = read_gates(gates), read_report(report)
    outcomes = check_gates(measured, limits)
    if out is not None:
        write_checks(measured, out, outcomes, gates)
    if json_:
        print_json({"outcomes": [_plain(outcome) for outcome in outcomes]})
    else:
        sys.stdout.write(outcome_lines(outcomes))
    raise typer.Exit(exit_code(outcomes))


def outcome_lines(outcomes: Sequence[Outcome]) -> str:
    """One line a gate."""
    return "".join(f"{o.verdict:<12}  {o.gate.name} ({o.run}): {o.reason}\n" for o in outcomes)


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "gate": outcome.gate.name,
        "run": outcome.run,
        "verdict": outcome.verdict,
        "reason": outcome.reason,
        "blocks": outcome.blocks,
    }
