"""A training that was interrupted and went on ends with the bits of one that was not."""

from __future__ import annotations

import json
import shutil
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from attnpriv.errors import InputError
from attnpriv.runs.folder import LEDGER, MANIFEST, WEIGHTS, load_run
from attnpriv.training.checkpoint import work_path
from attnpriv.work_folder import IDENTITY

STEPS, SEEDED = 40, {"epsilon": 3.0, "noise_multiplier": 1.5, "noise_seed": 0}


def interrupt(trainings: Any, out: Path, *arguments: Any, at: int, **options: Any) -> list[int]:
    """Train until a step; the steps that were taken."""
    taken: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        trainings.run(
            out,
            *arguments,
            interrupt_at=at,
            on_step=lambda step, *_: taken.append(step),
            **options,
        )
    assert taken[-1] == at
    assert not out.exists()
    return taken


def assert_same(run: Path, expected: Path) -> None:
    """Byte by byte, but for entries that the ledger has twice."""
    assert sorted(p.name for p in run.iterdir()) == sorted(p.name for p in expected.iterdir())
    assert {LEDGER, MANIFEST, WEIGHTS} < {path.name for path in run.iterdir()}
    for path in run.iterdir():
        if path.name not in (LEDGER, MANIFEST):
            assert path.read_bytes() == (expected / path.name).read_bytes(), path.name
    ours, theirs = ((folder / LEDGER).read_text().splitlines() for folder in (run, expected))
    assert [line for line, _ in groupby(ours)] == [line for line, _ in groupby(theirs)]
    assert load_run(run).card == load_run(expected).card


@pytest.mark.every_value
@pytest.mark.parametrize("private", [True, False], ids=["private", "plain"])
@pytest.mark.parametrize("trainable", ["head", "all", "last:1", "lora:2", "bias"])
def test_four_interrupts_leave_no_trace(
    trainings: Any, uninterrupted: Any, tmp_path: Path, trainable: str, private: bool
) -> None:
    out, options = tmp_path / "run", {"privacy": SEEDED if private else None}
    assert interrupt(trainings, out, trainable, at=1, **options) == [1]
    again = interrupt(trainings, out, trainable, at=20, resume=True, **options)
    assert again == list(range(1, 21))
    # Its state was saved after step 18, before the stretch that it did not get out of.
    assert interrupt(trainings, out, trainable, at=21, resume=True, **options) == [19, 20, 21]
    last = interrupt(trainings, out, trainable, at=STEPS, resume=True, **options)
    assert last == list(range(21, STEPS + 1))
    trainings.run(out, trainable, resume=True, **options)
    assert_same(out, uninterrupted(trainable, private))
    assert not work_path(out).exists()


@pytest.mark.parametrize("at", [1, 2, 21, STEPS])
def test_one_interrupt_at_any_step(
    trainings: Any, uninterrupted: Any, tmp_path: Path, at: int
) -> None:
    out = tmp_path / "run"
    interrupt(trainings, out, at=at)
    trainings.run(out, resume=True)
    assert_same(out, uninterrupted())


def test_warm_up_decay_and_average_go_on_where_they_were(trainings: Any, tmp_path: Path) -> None:
    options = {"warmup": 0.3, "decay": "cosine", "ema_decay": 0.8, "privacy": None, "steps": 10}
    expected = trainings.run(tmp_path / "expected" / "run", **options).path
    for at in (2, 7):
        out = tmp_path / str(at) / "run"
        interrupt(trainings, out, at=at, **options)
        trainings.run(out, resume=True, **options)
        assert_same(out, expected)


@pytest.mark.exhaustive
def test_a_secret_key_goes_on_from_the_saved_state(
    trainings: Any, uninterrupted: Any, tmp_path: Path
) -> None:
    secret = {**SEEDED, "noise_seed": None}
    interrupt(trainings, tmp_path / "one" / "run", at=21, privacy=secret)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    runs = [
        trainings.run(tmp_path / name / "run", resume=True, privacy=secret).path
        for name in ("one", "two")
    ]
    assert_same(*runs)
    card = json.loads((runs[0] / "model_card.json").read_text())
    assert card["private"]
    assert card["privacy"]["steps"] == STEPS
    assert (runs[0] / WEIGHTS).read_bytes() != (uninterrupted() / WEIGHTS).read_bytes()
    another = trainings.run(tmp_path / "three" / "run", privacy=secret).path
    assert (runs[0] / WEIGHTS).read_bytes() != (another / WEIGHTS).read_bytes()


def test_rows_that_an_earlier_version_split_otherwise_are_not_gone_on_with(
    trainings: Any, tmp_path: Path
) -> None:
    out, options = tmp_path / "run", {"privacy": None, "train_size": 0.8}
    interrupt(trainings, out, "head", at=1, **options)
    path = work_path(out) / IDENTITY
    identity = json.loads(path.read_text())
    assert identity["work"].pop("split by") == "content"
    path.write_text(json.dumps(identity))
    with pytest.raises(InputError, match="its split by is None, this command's is 'content'"):
        trainings.run(out, "head", resume=True, **options)
