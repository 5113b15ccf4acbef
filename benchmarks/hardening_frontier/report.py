"""From the measured cells to the frontier: a table for each data set and regime, and a plot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnpriv.errors import InputError
from benchmarks.hardening_frontier.cells import REGIMES
from benchmarks.hardening_frontier.points import Point
from benchmarks.hardening_frontier.tasks import NAMES

MARKERS = {"plain": "*", "clamp": "o", "tanh": "s", "norm": "^", "relative": "D"}
# Modes of one bound fan out.
SHIFTS = {"plain": 0.0, "clamp": -0.12, "tanh": -0.04, "norm": 0.04, "relative": 0.12}
COLOURS = {False: "tab:blue", True: "tab:red"}
GOAL_DATASETS = ("sms", "sst2")

Record = dict[str, Any]


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """The tables, and the goal's figure for every tuned point that meets its bound."""
    tables = []
    for dataset, regime, private in product(NAMES, REGIMES, (False, True)):
        chosen = [
            record
            for record in records
            if (record["dataset"], record["regime"], record["private"])
            == (dataset, regime, private)
        ]
        if chosen:
            tables.append(_table(dataset, regime, private, chosen, records))
    return {"benchmark": "hardening_frontier", "tables": tables, "goal": _goal(tables)}


def _table(
    dataset: str, regime: str, private: bool, chosen: list[Record], records: Sequence[Record]
) -> dict[str, Any]:
    names = dict.fromkeys(record["point"] for record in chosen)
    plain = {r["seed"]: r["utility"] for r in chosen if r["point"] == "plain"}
    measured = {
        r["point"]: r["attention"]
        for r in records
        if (r["dataset"], r["regime"]) == (dataset, regime) and r["attention"] is not None
    }
    return {
        "dataset": dataset,
        "regime": regime,
        "private": private,
        "metric": chosen[0]["metric"],
        "points": [
            _row(name, [r for r in chosen if r["point"] == name], plain, measured.get(name))
            for name in names
        ],
    }


def _row(
    name: str, cells: list[Record], plain: dict[int, float], attention: Record | None
) -> dict[str, Any]:
    # A student's teacher is known by itself: other draws make another plain model of that seed.
    compared = [c.get("teacher_utility") or plain.get(c["seed"]) for c in cells]
    losses = [
        100 * (c["utility"] - other)
        for c, other in zip(cells, compared, strict=True)
        if other is not None
    ]
    areas = [c["membership_auc"]["value"] for c in cells]
    return {
        "point": name,
        "seeds": len(cells),
        "utility": _mean_and_deviation([c["utility"] for c in cells]),
        "points_to_plain": _mean_and_deviation(losses),
        "provable_lift": round(Point.parse(name).lift_bound, 3),
        "membership_auc": _mean_and_deviation(areas),
        "attention": attention,
    }


def _mean_and_deviation(values: Sequence[float]) -> dict[str, float | None]:
    return {
        "mean": fmean(values) if values else None,
        "sd": stdev(values) if len(values) > 1 else None,
    }


def _goal(tables: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each fine-tuned point within the goal's bound, its mean loss in points by data set."""
    losses: dict[tuple[str, str], dict[str, float]] = {}
    for table in tables:
        if table["regime"] in ("tuned", "distilled") and table["dataset"] in GOAL_DATASETS:
            for row in table["points"]:
                loss = row["points_to_plain"]["mean"]
                if Point.parse(row["point"]).meets_goal and loss is not None:
                    key = table["regime"], row["point"]
                    losses.setdefault(key, {})[table["dataset"]] = -loss
    return [
        {
            "regime": regime,
            "point": point,
            "points_lost": found,
            "mean_points_lost": fmean(found.values()),
        }
        for (regime, point), found in losses.items()
    ]


def plot(summary: dict[str, Any], path: Path) -> None:
    """Draw provable lift against the change of utility, a row a regime, a column a data set.

    Raises:
        InputError: nothing has been measured, or the file cannot be written.
    """
    tables = summary["tables"]
    regimes = [name for name in REGIMES if any(t["regime"] == name for t in tables)]
    datasets = [name for name in NAMES if any(t["dataset"] == name for t in tables)]
    if not tables:
        raise InputError("expected measured cells to plot, got none")
    mpl.use("Agg")
    figure = Figure(figsize=(4.2 * len(datasets), 3.2 * len(regimes) + 0.6), layout="constrained")
    axes = figure.subplots(len(regimes), len(datasets), squeeze=False, sharex=True)
    for (i, regime), (j, dataset) in product(enumerate(regimes), enumerate(datasets)):
        _panel(
            axes[i][j],
            [t for t in tables if (t["regime"], t["dataset"]) == (regime, dataset)],
            f"{regime}, {dataset}",
        )
    figure.supxlabel(
        "provable lift of attention on 4 of 32 keys (8: nothing is proved); marker size: τ"
    )
    figure.supylabel("utility, points to plain attention")
    _legend(figure)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the plot {path}: {error}") from error


def _panel(axes: Axes, tables: list[dict[str, Any]], title: str) -> None:
    axes.set_visible(bool(tables))
    axes.set_title(title, fontsize=10)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.axvline(4, color="grey", linewidth=0.8, linestyle=":")
    for table in tables:
        for row in table["points"]:
            change = row["points_to_plain"]
            if change["mean"] is not None:
                point = Point.parse(row["point"])
                _draw(axes, point, table["private"], change["mean"], change["sd"] or 0.0)


def _draw(axes: Axes, point: Point, private: bool, change: float, deviation: float) -> None:
    mode = point.name.partition(":")[0]
    axes.errorbar(
        point.lift_bound + SHIFTS[mode],
        change,
        yerr=deviation,
        marker=MARKERS[mode],
        markersize=4 + point.attention.temperature,
        color=COLOURS[private],
        markerfacecolor="none" if private else None,
        alpha=0.8,
        elinewidth=0.8,
    )


def _legend(figure: Figure) -> None:
    handles = [
        mpl.lines.Line2D([], [], marker=marker, color="black", linestyle="", label=mode)
        for mode, marker in MARKERS.items()
    ]
    for private, label in ((False, "not private"), (True, "ε = 3")):
        handles.append(mpl.lines.Line2D([], [], color=COLOURS[private], label=label))
    figure.legend(handles=handles, loc="outside upper center", ncols=6, fontsize=8)
