"""Pieces of a job a second by one and by two workers, and what a piece costs beside its work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnpriv.jobs import Executor, ProcessPool, RayCluster, Told
from attnpriv.jobs.threads import one_thread
from attnpriv.runs.folder import load_run
from attnpriv.runs.packing import FolderOfRun
from attnpriv.runs.prediction import predict_probabilities
from benchmarks.scale.cluster import cluster

PIECES, EMPTY_PIECES = 12, 200
TEXTS = ["my parcel has not arrived and nobody answers the telephone"] * 4096


@dataclass(frozen=True)
class Predictions:
    """Predicts labels of some texts; a piece is how many, and 0 does nothing."""

    resumable = False

    run: FolderOfRun
    texts: tuple[str, ...]

    def packed(self) -> Predictions:
        """As ``jobs.Job.packed``."""
        return Predictions(self.run.packed(), self.texts)

    def begin(self) -> Callable[[tuple[int, int], Told], bytes]:
        """As ``jobs.Job.begin``."""
        run = self.run.load()

        def predict(piece: tuple[int, int], told: Told) -> bytes:
            _, texts = piece
            if not texts:
                return b""
            with one_thread():
                return bytes(predict_probabilities(run, list(self.texts[:texts])).tobytes())

        return predict


def measure(run: Path, rounds: int) -> dict[str, Any]:
    """Rates of all contenders, the median of the rounds."""
    texts = _texts_of_a_piece(run)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        found.setdefault("in this process", []).append(_alone(run, texts))
        for workers in (1, 2):
            pool = _crewed(ProcessPool(workers), run, texts)
            found.setdefault(f"processes {workers}", []).append(pool)
            with cluster(workers):
                ray = _crewed(RayCluster(), run, texts)
            found.setdefault(f"ray {workers}", []).append(ray)
    medians = {
        name: {key: statistics.median(each[key] for each in all_rounds) for key in all_rounds[0]}
        for name, all_rounds in found.items()
    }
    ideal = medians["in this process"]["pieces_a_second"]
    for name, each in medians.items():
        workers = int(name.split()[-1]) if name[-1].isdigit() else 1
        each["of_ideal"] = each["pieces_a_second"] / (ideal * workers)
    return {"texts_a_piece": texts, "rounds": rounds, **medians}


def _texts_of_a_piece(run: Path) -> int:
    """So many that a piece takes about half a second alone."""
    began = time.perf_counter()
    with one_thread():
        predict_probabilities(load_run(run), TEXTS[:256])
    return min(len(TEXTS), max(64, round(256 * 0.5 / (time.perf_counter() - began))))


def _alone(run: Path, texts: int) -> dict[str, float]:
    do = _job(run).begin()
    began = time.perf_counter()
    for number in range(PIECES):
        do((number, texts), lambda *_: None)
    return {"pieces_a_second": PIECES / (time.perf_counter() - began)}


def _crewed(executor: Executor, run: Path, texts: int) -> dict[str, float]:
    began = time.perf_counter()
    with executor.crew(_job(run)) as crew:
        warm = [(-number, 1) for number in range(1, 5)]  # until every worker has begun
        list(crew(warm, lambda *_: None))
        ready = time.perf_counter()
        list(crew([(number, texts) for number in range(PIECES)], lambda *_: None))
        done = time.perf_counter()
        list(crew([(number, 0) for number in range(EMPTY_PIECES)], lambda *_: None))
        ends = time.perf_counter()
    return {
        "seconds_to_start": ready - began,
        "pieces_a_second": PIECES / (done - ready),
        "milliseconds_of_an_empty_piece": 1000 * (ends - done) / EMPTY_PIECES,
    }


def _job(run: Path) -> Predictions:
    return Predictions(FolderOfRun.of(load_run(run)), tuple(TEXTS))
