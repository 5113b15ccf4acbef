"""Trainings that are killed, with kill -9, at any moment: no expense is lost, and no bit."""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from attnpriv.runs.folder import LEDGER, WEIGHTS, load_run
from attnpriv.training.checkpoint import CHECKPOINT, has_begun, training_folder, work_path

STEPS = 40
TRAINABLE = ("all", "head", "head")


def check_what_is_left(trainings: Any, out: Path, begun: int) -> None:
    """After a kill in a training of which so many steps had begun."""
    if out.exists():
        assert sorted(path.name for path in out.iterdir()) == [
            "config.json",
            "manifest.json",
            "model.safetensors",
            "model_card.json",
            "model_card.md",
            "privacy_ledger.jsonl",
            "tokenizer.json",
        ]
        card = load_run(out).card
        assert card.privacy.steps == STEPS
        ledger = [json.loads(line) for line in (out / LEDGER).read_text().splitlines()]
        assert [entry["what"] for entry in ledger if "what" in entry] == list(card.not_covered)
        return
    assert trainings.spent(out) >= begun
    if not has_begun(out):
        assert begun == 0
        return
    work = work_path(out)
    assert work.stat().st_mode & 0o777 == 0o700
    assert (work / CHECKPOINT).stat().st_mode & 0o777 == 0o600
    assert trainings.saved(out) <= trainings.spent(out)
    for path in training_folder(out, {}).run.iterdir():
        if path.name.startswith("."):
            continue  # half of a file, which no one will read
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".safetensors":
            load_file(path)


@pytest.mark.parametrize(
    ("kills", "after_a_step"), [(4, 1), pytest.param(50, 30, marks=pytest.mark.exhaustive)]
)
def test_kills_at_random_moments(
    trainings: Any, uninterrupted: Any, tmp_path: Path, kills: int, after_a_step: int
) -> None:
    chance = random.Random(0)
    moments: Counter[str] = Counter()
    durations = []
    for name in ("first", "again"):  # the first may start the server of the trainings
        started = time.monotonic()
        trainings.start(tmp_path / name / "run").wait()
        durations.append(time.monotonic() - started)
    duration = min(durations)
    for number in count():
        if moments["killed"] >= kills:
            break
        out, trainable = tmp_path / str(number) / "run", TRAINABLE[number % len(TRAINABLE)]
        begun = 0
        while not out.exists():
            child = trainings.start(out, trainable, resume=has_begun(out), reports=True)
            # While it starts, a few steps on, or after the last step.
            wanted = min(STEPS, chance.choice((0, begun + 1, begun + 2, begun + 9, STEPS)))
            with child.steps() as steps:
                for step in steps if wanted else ():
                    begun = max(begun, step)
                    if step >= wanted:
                        break
                time.sleep(chance.uniform(0, duration * chance.choice((0.02, 0.25))))
                child.send(signal.SIGKILL)
                begun = max([begun, *steps])
            code = child.wait()
            assert code in (0, -signal.SIGKILL), child.errors
            moments["killed"] += code != 0
            moments["after a step"] += code != 0 and begun > 0
            check_what_is_left(trainings, out, begun)
        assert (out / WEIGHTS).read_bytes() == (uninterrupted(trainable) / WEIGHTS).read_bytes()
    assert moments["after a step"] >= after_a_step


@pytest.mark.parametrize(
    "interrupt_at",
    [
        pytest.param(None, id="new", marks=pytest.mark.exhaustive),
        pytest.param(STEPS, id="in the last stretch"),
    ],
)
def test_a_kill_before_every_change_of_a_file(
    trainings: Any, uninterrupted: Any, tmp_path: Path, interrupt_at: int | None
) -> None:
    """Each process gets one change further than the one before, until there is a run folder."""
    out = tmp_path / "run"
    if interrupt_at is not None:
        assert trainings.start(out, "head", interrupt_at=interrupt_at).wait() == 130
    for changes in count(1):
        child = trainings.start(
            out, "head", resume=has_begun(out), dies_before_change=changes, reports=True
        )
        with child.steps() as steps:
            begun = max(steps, default=0)
        assert child.wait() in (0, -signal.SIGKILL), child.errors
        check_what_is_left(trainings, out, begun)
        if out.exists():
            break
    assert changes > 20
    assert (out / WEIGHTS).read_bytes() == (uninterrupted("head") / WEIGHTS).read_bytes()
