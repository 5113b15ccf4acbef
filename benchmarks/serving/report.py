"""From single figures to medians, ratios, what was promised of them, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.serving.contenders import COMPARED, CONCURRENCY, NAIVE, OPEN_COMPARED, OURS
from benchmarks.serving.ideal import IdealQueue
from benchmarks.serving.rounds import Measurements

CLOSED, OPEN = f"closed {COMPARED}", f"open {OPEN_COMPARED:g}"
OF_LIMIT, OF_LIMIT_AIM = 0.80, 0.90
TIMES_NAIVE = 4.0
TIMES_IDEAL = 1.3  # as long as an ideal queue takes for 99 % of the answers

Record = dict[str, Any]


def summarise(found: Measurements, precision: str) -> dict[str, Any]:
    """Medians over the rounds, and how they compare.

    Args:
        found: every single figure.
        precision: of our server.
    """
    checks = [check for mix in found.mixes for check in _checks(found, precision, mix)]
    commitments = [check["held"] for check in checks if check["kind"] == "commitment"]
    starts = _medians(found.starts, ("server", "precision", "models"))
    return {
        "precision": precision,
        "held": bool(commitments) and all(commitments),
        "checks": checks,
        "mixes": found.mixes,
        "limits": _medians(found.limits, ("precision", "mix")),
        "cells": _medians(found.cells, ("server", "precision", "mix", "load")),
        "starts": starts,
        "memory_mb_per_model": _memory_per_model(starts),
        "agreement": found.agreement,
        "failed": found.failed,
    }


def tables(summary: dict[str, Any]) -> Iterator[Table]:
    """One for each mix, then what starting takes, then the checks."""
    for mix, about in summary["mixes"].items():
        yield _mix_table(summary, mix, about)
    table = _table("starting", "server", "models", "s to the first answer", "MB")
    for start in summary["starts"]:
        row = (f"{start['server']} {start['precision']}", str(start["models"]))
        table.add_row(*row, _number(start["seconds"], 1), _number(start["memory_mb"]))
    yield table
    table = _table("promised and aimed at", "", "mix", "what", "figure", "limit", "held")
    for check in summary["checks"]:
        figures = (_number(check["figure"], 2), _number(check["limit"], 2))
        held = {True: "yes", False: "no", None: "not measured"}[check["held"]]
        table.add_row(check["kind"], check["mix"], check["what"], *figures, held)
    yield table


def _checks(found: Measurements, precision: str, mix: str) -> Iterator[Record]:
    cells = [cell for cell in found.cells if cell["mix"] == mix]
    ours = _by_round(cells, server=OURS, precision=precision, load=CLOSED)
    late = _by_round(cells, server=OURS, precision=precision, load=OPEN)
    limits = _by_round(found.limits, mix=mix, precision=precision)
    naive = _by_round(cells, server=NAIVE, load=CLOSED)

    def check(
        kind: str, what: str, figure: float | None, limit: float, at_most: bool = False
    ) -> Record:
        about = {"kind": kind, "mix": mix, "what": what, "limit": limit}
        if figure is None:
            return {**about, "figure": None, "held": None}
        held = figure <= limit if at_most else figure >= limit
        return {**about, "figure": round(figure, 3), "held": held}

    share = _ratio(ours, "throughput", limits, "forward")
    whole = _ratio(ours, "throughput", limits, "tokenised")
    yield check("commitment", f"of the limit, {CLOSED}", share, OF_LIMIT)
    yield check("aim", f"of the limit, {CLOSED}", share, OF_LIMIT_AIM)
    yield check("aim", f"of the limit with tokenisation, {CLOSED}", whole, OF_LIMIT_AIM)
    times = _ratio(ours, "throughput", naive, "throughput")
    yield check("commitment", f"× {NAIVE} float32, {CLOSED}", times, TIMES_NAIVE)
    queues = _ideal(late, limits, found.mixes[mix])
    times = _ratio(late, "p99", queues, "p99")
    yield check("aim", f"p99 × that of an ideal queue, {OPEN}", times, TIMES_IDEAL, at_most=True)
    errors = sum(cell["errors"] for cell in (*ours.values(), *late.values())) if ours else None
    yield check("commitment", f"errors, {CLOSED} and {OPEN}", errors, 0, at_most=True)
    for server, theirs in dict.fromkeys((c["server"], c["precision"]) for c in cells):
        if server not in (OURS, NAIVE):
            peer = _by_round(cells, server=server, precision=theirs, load=CLOSED)
            times = _ratio(ours, "throughput", peer, "throughput")
            yield check("aim", f"× {server} {theirs}, {CLOSED}", times, 1.0)


def _ideal(
    late: dict[int, Record], limits: dict[int, Record], mix: dict[str, float]
) -> dict[int, Record]:
    """By round, p99 of an ideal queue to which texts come as often as to our server."""
    found = {}
    for number in late.keys() & limits.keys():
        limit = limits[number]
        batch = max(1, round(limit["budget"] / mix["mean_tokens"]))
        queue = IdealQueue(limit["single_ms"], limit["forward"], batch, limit["workers"])
        found[number] = {"p99": queue.p99_ms(late[number]["offered"], seed=number)}
    return found


def _by_round(records: Iterable[Record], **wanted: Any) -> dict[int, Record]:
    return {
        record["round"]: record
        for record in records
        if all(record[name] == value for name, value in wanted.items())
    }


def _ratio(
    ours: dict[int, Record], figure: str, theirs: dict[int, Record], other: str
) -> float | None:
    """The median over the rounds of one figure over another of the same round."""
    pairs = [
        (ours[number][figure], theirs[number][other]) for number in ours.keys() & theirs.keys()
    ]
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return median(ratios) if ratios else None


def _medians(records: Sequence[Record], key: tuple[str, ...]) -> list[Record]:
    """One record for each value of the key, in the order in which they came."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(tuple(record[name] for name in key), []).append(record)
    return [
        {**dict(zip(key, values, strict=True)), **_median(group, {*key, "round"})}
        for values, group in groups.items()
    ]


def _median(records: Sequence[Record], without: set[str]) -> Record:
    """Medians of the figures, but the sum of the errors."""
    found: Record = {}
    for name in (name for name in records[0] if name not in without):
        values = [record[name] for record in records if record[name] is not None]
        total = sum if name == "errors" else median
        found[name] = round(total(values), 4) if values else None
    return found


def _memory_per_model(starts: Sequence[Record]) -> dict[str, float]:
    """What each model beyond the first takes in our server, by precision."""
    one = {s["precision"]: s for s in starts if s["server"] == OURS and s["models"] == 1}
    return {
        more["precision"]: (more["memory_mb"] - one[more["precision"]]["memory_mb"])
        / (more["models"] - 1)
        for more in starts
        if more["models"] > 1
    }


def _mix_table(summary: dict[str, Any], mix: str, about: dict[str, float]) -> Table:
    title = f"{mix}: {about['mean_tokens']:.0f} tokens on average, {about['longest']} at most"
    rates = (f"/s at {concurrency}" for concurrency in CONCURRENCY)
    late = (f"p50 ms at {COMPARED}", f"p99 at {COMPARED}", f"p99 at {OPEN_COMPARED:.0%}")
    table = _table(title, "server", *rates, *late, "client's core")
    cells: dict[tuple[str, str], dict[str, Record]] = {}
    for cell in summary["cells"]:
        if cell["mix"] == mix:
            cells.setdefault((cell["server"], cell["precision"]), {})[cell["load"]] = cell
    for (server, precision), loads in cells.items():
        row = [
            loads.get(f"closed {concurrency}", {}).get("throughput") for concurrency in CONCURRENCY
        ]
        row += [loads[CLOSED]["p50"], loads[CLOSED]["p99"], loads.get(OPEN, {}).get("p99")]
        share = f"{loads[CLOSED]['client_cpu']:.0%}"
        table.add_row(f"{server} {precision}", *(_number(value) for value in row), share)
    for limit in summary["limits"]:
        if limit["mix"] == mix:  # its best stands where servers are compared
            name = f"raw forward {limit['precision']}"
            table.add_row(name, _number(1e3 / limit["single_ms"]), "", _number(limit["forward"]))
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    return table


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"
