"""The standard suite of attacks, on embeddings and on texts, over 1,000 messages.

A small model from scratch is trained on SMS spam without ε, unless there is one in ``--run``, and
its held-out rows are attacked in pieces, several processes at a time. Finished pieces stay in
``--work``: the same command goes on after Ctrl-C. Needs the real data beside the checkout, or
``--data``. One JSON line at the end. Each piece has its own unit of radii, the deviation of a
coordinate over its messages. ``seconds`` are those of this call, without the training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from attnpriv.audit.documents import prepare, sample
from attnpriv.audit.robustness.embedding import ATTACKS, embedding_attacks
from attnpriv.audit.robustness.text import text_attacks
from attnpriv.config import AttentionConfig, TrainConfig
from attnpriv.data import load_dataset
from attnpriv.errors import InputError
from attnpriv.estimates import Estimate, wilson
from attnpriv.jobs import ProcessPool, Told
from attnpriv.progress import stage_bars
from attnpriv.runs.folder import load_run
from attnpriv.training import train
from attnpriv.work_folder import WorkFolder, open_work_folder
from benchmarks.machine import processor

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "sms_spam.tsv"
PIECE = 50  # messages in one piece; it bounds what an interruption costs
Rows = tuple[int, ...]


def main() -> None:
    """Attack what is missing, and print how accuracy fell."""
    parser = argparse.ArgumentParser(description=__doc__, prog="benchmarks.robustness")
    parser.add_argument("--run", type=Path, default=Path("robustness.run"), help="(%(default)s)")
    parser.add_argument("--data", default=str(DATA), help="(%(default)s)")
    parser.add_argument("--rows", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("robustness.work"), help="(%(default)s)")
    options = parser.parse_args()
    try:
        print(json.dumps(_measure(options)))
    except InputError as error:
        sys.exit(str(error))


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    if options.rows < 1:
        raise InputError(f"expected --rows of at least 1, got {options.rows}")
    if not options.run.is_dir():
        _train(options.data, options.run)
    started = time.monotonic()
    job = _Suite(str(options.run), options.data)
    identity = {"run": str(options.run), "data": options.data, "rows": options.rows}
    with open_work_folder(
        options.work, identity, job=f"attacks in {options.work}", resume=None
    ) as work:
        pieces = _pieces(job, options.rows)
        _attack(job, pieces, work, options.processes)
        found = [json.loads(work.read(_file(piece)) or b"") for piece in pieces]
    return {
        "benchmark": "robustness",
        "processor": processor(),
        "processes": options.processes,
        "seconds": round(time.monotonic() - started, 1),
        **_together(found),
    }


def _train(data: str, out: Path) -> None:
    config = TrainConfig(trainable="all", steps=200)
    plain: dict[str, Any] = {"attention": AttentionConfig(), "privacy": None}
    train(load_dataset(data), out, encoder="scratch", config=config, **plain)


@dataclass(frozen=True)
class _Suite:
    """What a process needs in order to attack."""

    resumable = False

    run: str
    data: str

    def packed(self) -> _Suite:
        """As it is: other processes of this machine see the same files."""
        return self

    def begin(self) -> Callable[[Rows, Told], bytes]:
        """Load the run and its data once."""
        torch.set_num_threads(1)
        run, data = load_run(Path(self.run)), load_dataset(self.data)

        def attack(rows: Rows, told: Told) -> bytes:
            started = time.process_time()
            records = data.subset(rows)
            documents = prepare(run.modality, records, [()] * len(rows))
            moved = embedding_attacks(run.model, documents, len(rows))
            edited = text_attacks(run, documents, len(rows))
            return json.dumps(
                {
                    "rows": len(rows),
                    "right": _count(moved.clean, len(rows)),
                    "embeddings": {
                        str(at.scale): {
                            name: _count(getattr(at, name), len(rows)) for name in ATTACKS
                        }
                        for at in moved.radii
                    },
                    "texts": {
                        str(at.edits): _count(at.strongest, len(rows)) for at in edited.curve
                    },
                    "unbroken": moved.least.unbroken,
                    "valid": moved.valid and edited.valid,
                    "cpu_seconds": time.process_time() - started,
                }
            ).encode()

        return attack


def _count(estimate: Estimate, rows: int) -> int:
    return round((estimate.value or 0.0) * rows)


def _pieces(job: _Suite, rows: int) -> list[Rows]:
    data = load_dataset(job.data)
    held_out = load_run(Path(job.run)).split(data).held_out
    chosen = [held_out[i] for i in sample(len(held_out), rows, 0)]
    return [tuple(chosen[at : at + PIECE]) for at in range(0, len(chosen), PIECE)]


def _file(piece: Rows) -> str:
    return f"{piece[0]:06d}.json"


def _attack(job: _Suite, pieces: Iterable[Rows], work: WorkFolder, processes: int) -> None:
    known = list(pieces)
    missing = [piece for piece in known if work.read(_file(piece)) is None]
    with stage_bars() as bar, ProcessPool(processes).crew(job) as crew:
        for piece, content in crew(missing, lambda *note: None):
            work.write(_file(piece), content)
            done = sum(work.read(_file(each)) is not None for each in known)
            bar("pieces of messages", done, len(known))


def _together(found: list[dict[str, Any]]) -> dict[str, Any]:
    rows = sum(each["rows"] for each in found)

    def share(*path: str) -> float | None:
        counts: list[Any] = [reduce(lambda part, name: part[name], path, each) for each in found]
        return wilson(sum(counts), rows).value

    first = found[0]
    return {
        "rows": rows,
        "cpu_seconds": round(sum(each["cpu_seconds"] for each in found), 1),
        "valid": all(each["valid"] for each in found),
        "clean": share("right"),
        "embeddings": {
            scale: {name: share("embeddings", scale, name) for name in names}
            for scale, names in first["embeddings"].items()
        },
        "unbroken_at_the_largest_radius": sum(each["unbroken"] for each in found),
        "texts": {edits: share("texts", edits) for edits in first["texts"]},
    }


if __name__ == "__main__":
    main()
