"""A server and the load generator that asks it, from their start to their end."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.serving.classifier import PRECISION, RUN, THREADS, WORKERS
from benchmarks.serving.contenders import Launch, Service
from benchmarks.serving.environments import ROOT
from benchmarks.serving.processes import Tree, Worker

PATIENCE = 180.0  # seconds until the first answer
TRIES_APART = 0.05


class NotServingError(Exception):
    """A server does not answer; the message says what is known."""


def environment(run: Path, precision: str, workers: int, threads: int) -> dict[str, str]:
    """What every process is told, whether it serves or measures the limit.

    They leave what they leave beside the models, not in the user's home or the system's folder.
    """
    scratch = str(run.parents[1])
    return {
        RUN: str(run),
        PRECISION: precision,
        WORKERS: str(workers),
        THREADS: str(threads),
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),  # of the tokeniser
        "PYTHONPATH": f"{ROOT}:{ROOT / 'server'}",
        "HOME": scratch,
        "TMPDIR": scratch,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # else its replicas yield to the load generator
        "BENTOML_DO_NOT_TRACK": "True",
    }


def write_json(path: Path, value: Any) -> None:
    """Write what a worker is to read."""
    path.write_text(json.dumps(value), encoding="utf-8")


class Stage:
    """A running server with its generator; a context manager that ends both.

    Args:
        service: what to start.
        launch: with what.
        run: the run folder.
        bodies: requests by mix.
        folder: an empty one, for what they write.

    Attributes:
        start_seconds: from the start to the first answer.

    Raises:
        NotServingError: it ends, or does not answer in time.
    """

    def __init__(
        self,
        service: Service,
        launch: Launch,
        run: Path,
        bodies: dict[str, Sequence[bytes]],
        folder: Path,
    ) -> None:
        encoded = {mix: [base64.b64encode(b).decode() for b in of] for mix, of in bodies.items()}
        write_json(folder / "bodies.json", encoded)
        variables = environment(run, launch.precision, launch.workers, launch.threads)
        command = [str(launch.python), "-m", "benchmarks.serving.generator"]
        files = ["--bodies", str(folder / "bodies.json")]
        self._mixes = list(bodies)
        with ExitStack() as stack:
            started = time.monotonic()
            self.server = stack.enter_context(
                Tree(service.command(launch), variables, folder / "server")
            )
            self._generator = stack.enter_context(
                Worker(
                    [*command, *files, *service.target(launch.port)],
                    variables,
                    folder / "generator",
                )
            )
            self._await_answer(started + PATIENCE)
            self.start_seconds = time.monotonic() - started
            self._stack = stack.pop_all()

    def answers(self, mix: str, count: int) -> list[bytes | None]:
        """Answers to the first requests of a mix, asked at once; None for one that failed."""
        found = self._generator.ask({"mix": mix, "ask": count})
        return [answer and base64.b64decode(answer) for answer in found]

    def measure(self, mix: str, seconds: float, **load: float) -> dict[str, Any]:
        """Put a load on the server; see the generator."""
        return self._generator.ask({"mix": mix, "seconds": seconds, **load})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _await_answer(self, deadline: float) -> None:
        while self.answers(self._mixes[0], 1) == [None]:
            if self.server.process.poll() is not None or time.monotonic() > deadline:
                raise NotServingError(f"no answer; it last wrote: {self.server.last_words()}")
            time.sleep(TRIES_APART)
