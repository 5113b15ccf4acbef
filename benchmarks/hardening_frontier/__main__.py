"""Measure the wanted cells, each once, and report on all that the results file holds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from attnpriv.errors import InputError
from benchmarks.hardening_frontier import tasks
from benchmarks.hardening_frontier.cells import REGIMES, Plan, Results
from benchmarks.hardening_frontier.measures import measure
from benchmarks.hardening_frontier.points import Point, all_points
from benchmarks.hardening_frontier.regimes import train_cell
from benchmarks.hardening_frontier.report import plot, summarise

PRIVACY = {"plain": (False,), "private": (True,), "both": (False, True)}


def main() -> None:
    """Run what the command line asks for; one line says what is wrong with it."""
    arguments = _arguments()
    try:
        results = Results.read(arguments.results)
        if not arguments.report:
            _measure(_plan(arguments), results, arguments.minutes)
        summary = summarise(results.records)
        if arguments.plot is not None:
            plot(summary, arguments.plot)
    except InputError as error:
        sys.exit(str(error))
    print(json.dumps(summary))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.hardening_frontier")
    parser.add_argument("--results", type=Path, required=True, help="JSON lines, appended to")
    parser.add_argument("--only", default=",".join(REGIMES), help="regimes (%(default)s)")
    parser.add_argument("--datasets", default=",".join(tasks.NAMES), help="(%(default)s)")
    parser.add_argument("--points", help="plain or MODE:CLIP:TAU, such as plain,norm:3.88:4 (all)")
    parser.add_argument("--privacy", choices=PRIVACY, default="both")
    parser.add_argument("--seeds", type=int, default=3, help="how many (%(default)s)")
    parser.add_argument("--minutes", type=float, help="of processor time to spend, about")
    parser.add_argument("--report", action="store_true", help="measure nothing more")
    parser.add_argument("--plot", type=Path, help="where to draw the frontier, such as f.svg")
    return parser.parse_args()


def _plan(arguments: argparse.Namespace) -> Plan:
    if arguments.seeds < 1:
        raise InputError(f"expected seeds >= 1, got {arguments.seeds}")
    points = arguments.points
    plan = Plan(
        regimes=_known("regime", arguments.only, REGIMES),
        datasets=_known("data set", arguments.datasets, tasks.NAMES),
        points=[Point.parse(p) for p in points.split(",")] if points else all_points(),
        privacy=PRIVACY[arguments.privacy],
        seeds=range(arguments.seeds),
    )
    for name in plan.datasets:
        tasks.load_task(name)  # a missing file is found now, not after an hour
    return plan


def _known(what: str, given: str, choices: Sequence[str]) -> list[str]:
    names = given.split(",")
    for name in names:
        if name not in choices:
            raise InputError(f"expected a {what} among {', '.join(choices)}, got {name!r}")
    return names


def _measure(plan: Plan, results: Results, minutes: float | None) -> None:
    # One thread, so that cells take the same time whatever else the machine does.
    torch.set_num_threads(1)
    done = results.done()
    missing = [cell for cell in plan.cells() if cell.key not in done]
    for number, cell in enumerate(missing, start=1):
        if minutes is not None and time.process_time() > 60 * minutes:
            print(f"stopped after {minutes:g} minutes", file=sys.stderr)
            return
        started = time.process_time()
        measures = measure(cell, train_cell(cell))
        seconds = time.process_time() - started
        results.add(cell, {**measures, "seconds": round(seconds, 1)})
        print(
            f"{number}/{len(missing)} {cell}: {measures['utility']:.4f} in {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )


if __name__ == "__main__":
    main()
