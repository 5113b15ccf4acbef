"""``attnpriv gate``: does a report keep its limits?"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attnpriv.cli import options
from attnpriv.cli.output import print_json

if TYPE_CHECKING:
    from attnpriv.report.gates import Outcome


def gate(
    report: Annotated[
        Path, typer.Argument(help="The audit.json that attnpriv audit wrote.", show_default=False)
    ],
    gates: Annotated[
        Path, typer.Argument(help="TOML file of limits, see docs/gates.md.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write the outcome to, as JUnit XML, SARIF and Markdown. Default: it is "
            "only printed.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Check the report of an audit against limits.

    Exit code 0 if all are kept, 1 if one is broken, 2 if one cannot be decided from the report.
    """
    from attnpriv.report import (
        as_report,
        check_gates,
        exit_code,
        read_gates,
        read_report,
        write_checks,
    )

    limits, measured = read_gates(gates), read_report(report)
    outcomes = check_gates(measured, limits)
    if out is not None:
        write_checks(as_report(measured), out, outcomes, gates)
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
