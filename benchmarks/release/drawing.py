"""Protection against faithfulness, a panel for each model and each part of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

PARTS = {"label": ("same_label", "the label"), "attention": ("same_top", "attention")}


def plot(attacks: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Draw how often the value is found against how much of the full answer is shown."""
    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "attnpriv"
    figure = Figure(figsize=(9.6, 3.6 * len(attacks)), layout="constrained")
    axes = figure.subplots(len(attacks), len(PARTS), squeeze=False, sharey=True)
    for line, (model, found) in zip(axes, attacks.items(), strict=True):
        for panel, (part, (worth, title)) in zip(line, PARTS.items(), strict=True):
            for number, (name, policy) in enumerate(found["policies"].items()):
                x, y = policy["worth"][worth], policy["value"][part]
                panel.errorbar(
                    x["value"],
                    y["value"],
                    xerr=[[x["value"] - x["low"]], [x["high"] - x["value"]]],
                    yerr=[[y["value"] - y["low"]], [y["high"] - y["value"]]],
                    fmt="osDv^<>P*X"[number],
                    color=f"C{number}",
                    label=name,
                )
            panel.axhline(1 / found["candidates"], color="black", linestyle=":", label="chance")
            panel.set_yscale("log")
            panel.set_title(f"{model}: {title}", fontsize=10)
            panel.set_xlabel(
                "drawn or shown label is the full answer's"
                if part == "label"
                else "top position is the full answer's"
            )
    axes[0][0].set_ylabel("value found among 100")
    axes[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, metadata={"Date": None})
