"""Jobs by one and two workers, Ray Serve beside our own server, and a simulation of 64 replicas.

Every part measures its contenders in turn, round by round, so that other work on the machine falls
on all of them alike. The last line is one JSON object. docs/benchmarks.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.training import train
from benchmarks.machine import processor
from benchmarks.scale import jobs, serving, simulation


def main() -> None:
    """Measure; print JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.scale")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each contender in a round")
    arguments = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as made:
        models = Path(made) / "models"
        _train(models / "tickets")
        found: dict[str, Any] = {"machine": _machine()}
        found["jobs"] = jobs.measure(models / "tickets", arguments.rounds)
        print(json.dumps(found["jobs"]))
        found["serving"] = serving.measure(models, arguments.rounds, arguments.seconds)
        print(json.dumps(found["serving"]))
        times = simulation.Times.measured(models / "tickets", arguments.rounds)
        found["simulation"] = simulation.replicas(times)
    found["machine"]["load_at_the_end"] = os.getloadavg()[0]
    print(json.dumps(found))


def _train(out: Path) -> None:
    train(
        load_dataset("tickets:rows=300"),
        out,
        encoder="scratch",
        attention=AttentionConfig(temperature=2.0, clip=2.0, clip_mode="norm"),
        config=TrainConfig(trainable="last:1", steps=3),
        privacy=PrivacyConfig(epsilon=3.0),
    )


def _machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "load_at_the_start": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
