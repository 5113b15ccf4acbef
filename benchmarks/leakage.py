"""Seconds of processor time that each attack on a model takes, at stated sizes, in one thread.

The model is one from scratch, trained without privacy on tickets with planted secrets; the
answers of shadow models are made up, since attacks only read them. Passes through the model are in
each attack's time, and so are its controls. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attnpriv.audit.leakage.likelihood import Confidences
from attnpriv.audit.leakage.shadow_attacks import shadow_attacks
from attnpriv.audit.measures import ALONE
from attnpriv.audit.subject import Answers, AuditOptions, Subject, choose_rows
from attnpriv.audit.tasks import MEMBERS, Task
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.data.planting import plant
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import Run, load_run
from attnpriv.training import train
from attnpriv_client.audit.shadow_attacks import Record, attack
from benchmarks.machine import processor

SIZES = (100, 400)  # records of either kind
MODELS = 64  # shadow models
SECRETS = 4  # for each number of repetitions
MEASURES = ("memorisation", "exposure", "membership", "explanation_attacks", "inversion")


def main() -> None:
    """Measure; print a line for each size and JSON at the end."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.leakage")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="records of either kind")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]
    with tempfile.TemporaryDirectory() as folder, one_thread():
        run, data = _trained(Path(folder) / "run", max(sizes))
        seconds = {}
        for size in sizes:
            seconds[size] = _of_folder(run, data, size) | _of_answers(size)
            print(size, seconds[size], flush=True)
    found = {
        "benchmark": "leakage",
        "processor": processor(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "encoder": "scratch",
        "shadow_models": MODELS,
        "secrets": SECRETS * 2,
        "seconds_by_records": seconds,
    }
    print(json.dumps(found))


def _trained(folder: Path, size: int) -> tuple[Run, Any]:
    data = plant(load_dataset(f"tickets:rows={3 * size}"), SECRETS, (1, 4))
    config = TrainConfig(trainable="all", steps=40, train_size=0.5)
    train(data, folder, encoder="scratch", attention=AttentionConfig(), config=config, privacy=None)
    return load_run(folder), data


def _of_folder(run: Run, data: Any, size: int) -> dict[str, float]:
    """Of the attacks that have the run folder."""
    options = AuditOptions(
        documents=size,
        members=size,
        memorisation_documents=size,
        explanation_documents=size,
        inversion_documents=size,
    )
    rows = choose_rows(run, data, options)
    marked = dict(enumerate(data.spans))
    subject = Subject(run, data, rows, marked, options)
    classes = len(data.label_names)
    held_out, members = (
        np.full((len(each), classes), 1 / classes) for each in (subject.documents, subject.members)
    )
    answers = Answers(held_out, members)
    tasks = {"answers": Task(0, MEMBERS, tuple(range(len(subject.members))))}
    tasks |= {each.name: Task(0, each.name, answers=answers) for each in ALONE
              if each.name in MEASURES}  # fmt: skip
    return {name: _seconds(lambda task=task: task.perform(subject, _quietly))
            for name, task in tasks.items()}  # fmt: skip


def _of_answers(size: int) -> dict[str, float]:
    """Of the attacks that read the answers of shadow models, with arrays and in plain Python."""
    rng = np.random.default_rng(0)
    inside = rng.random((MODELS, 2 * size)) < 0.5
    shadows = rng.normal(size=inside.shape) + inside
    members = rng.random(2 * size) < 0.5
    target = rng.normal(size=2 * size) + members
    seen = Confidences(target, shadows, inside)
    columns = zip(target.tolist(), shadows.T.tolist(), inside.T.tolist(), members.tolist(),
                  strict=True)  # fmt: skip
    records = [Record(own, tuple(said), tuple(saw), member) for own, said, saw, member in columns]
    return {
        "shadow_attacks": _seconds(lambda: shadow_attacks(seen, members)),
        "shadow_attacks_of_the_client": _seconds(lambda: attack(records, None, 0)),
    }


def _seconds(work: Callable[[], Any]) -> float:
    begun = time.process_time()
    work()
    return round(time.process_time() - begun, 2)


def _quietly(done: int, total: int) -> None:
    """No bar."""


if __name__ == "__main__":
    main()
