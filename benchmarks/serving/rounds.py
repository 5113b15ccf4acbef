"""The measurements: every server started once, then rounds in which they take turns."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from attnpriv.runs.folder import load_run
from attnpriv.runs.prediction import predict_probabilities
from benchmarks.serving import texts
from benchmarks.serving.contenders import MODEL, OURS, Contender, Launch, contenders, request
from benchmarks.serving.environments import EnvironmentFailedError, python_of
from benchmarks.serving.processes import Worker, free_port
from benchmarks.serving.stage import NotServingError, Stage, environment, write_json

CHECKED = 64  # answers that are compared with the library's before anything is measured
AGREEMENT = 0.95  # bfloat16 may turn a label that is as good as even
SEVERAL = 3  # models, whose memory says what one takes


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Attributes:
        data: file of messages.
        environments: folder of the peers' environments.
        precision: of our server, and of the peers that are to do the same work.
        only: names of the servers to measure; empty for all.
        rounds: of everything.
        seconds: of a load.
        workers: forward passes at a time in every server, and processes that measure the limit.
        threads: of a forward pass.
    """

    data: Path
    environments: Path
    precision: str
    only: Sequence[str]
    rounds: int
    seconds: float
    workers: int
    threads: int

    @property
    def contenders(self) -> list[Contender]:
        """Those that are wanted."""
        return [
            c for c in contenders(self.precision) if not self.only or c.service.name in self.only
        ]


@dataclass(frozen=True)
class Measurements:
    """Every single figure; each is a record that names what it is of, and its round.

    Attributes:
        mixes: number, mean and longest length of the texts of each mix.
        cells: of a server under a load.
        limits: of the raw forward pass.
        starts: of every server, and of ours in each round, with one model and with several.
        agreement: share of labels equal to the library's in float32, by contender.
        failed: what was not measured, and why.
    """

    mixes: dict[str, dict[str, float]] = field(default_factory=dict)
    cells: list[dict[str, Any]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    agreement: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def measure(plan: Plan, scratch: Path) -> Measurements:
    """Start everything, measure it in turns, and end it.

    Args:
        plan: what to measure.
        scratch: an empty folder.
    """
    found = Measurements()
    with ExitStack() as stack:
        servers = _Servers(plan, scratch, found, stack)
        for number in range(plan.rounds):
            for mix in servers.mixes:
                servers.measure(number, mix)
            servers.measure_start()
    return found


class _Servers:
    """All of them, started; one at a time runs, and the others are stopped by a signal."""

    def __init__(self, plan: Plan, scratch: Path, found: Measurements, stack: ExitStack) -> None:
        self._plan, self._scratch, self._found = plan, scratch, found
        self._run = scratch / "models" / MODEL
        self._run.parent.mkdir()
        texts.make_run(self._run)
        self.mixes = self._make_mixes()
        self._limits = {
            precision: [
                stack.enter_context(self._limit(precision, number))
                for number in range(plan.workers)
            ]
            for precision in dict.fromkeys(c.precision for c in plan.contenders if _is_ours(c))
        }
        self._stages = dict(self._start_all(stack))

    def measure(self, number: int, mix: str) -> None:
        """Put every server under its loads of a mix, beginning with another one in each round."""
        stages = list(self._stages.items())
        first = number % max(len(stages), 1)
        for contender, stage in stages[first:] + stages[:first]:
            _say(f"round {number + 1}: {contender.name}, {mix}")
            if _is_ours(contender):
                limit = _together(self._limits[contender.precision], {"mix": mix})
                about = {"round": number, "mix": mix, "precision": contender.precision}
                self._found.limits.append({**about, **limit})
            with _running(stage):
                for load, figures in self._loads(contender, stage, mix, number):
                    about = {"round": number, "mix": mix, "load": load}
                    who = {"server": contender.service.name, "precision": contender.precision}
                    self._found.cells.append({**about, **who, **figures})

    def measure_start(self) -> None:
        """Start our server afresh, with one model and with several, each of which answers."""
        for ours in filter(_is_ours, self._stages):
            for count in (1, SEVERAL):
                names = [f"{MODEL}{number}" for number in range(count)]
                models = self._scratch / f"{count} models"
                for name in names:
                    shutil.copytree(self._run, models / name, dirs_exist_ok=True)
                bodies = [request(name, self.mixes["long"][0]) for name in names]
                with self._stage(ours, models, {"models": bodies}) as stage:
                    if None not in stage.answers("models", count):
                        self._record_start(ours, stage, count)

    def _record_start(self, contender: Contender, stage: Stage, models: int) -> None:
        self._found.starts.append(
            {
                "server": contender.service.name,
                "precision": contender.precision,
                "models": models,
                "seconds": stage.start_seconds,
                "memory_mb": stage.server.memory() / 2**20,
            }
        )

    def _loads(
        self, contender: Contender, stage: Stage, mix: str, number: int
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        capacity = 0.0
        for concurrency in contender.concurrency:
            figures = stage.measure(mix, self._plan.seconds, concurrency=concurrency)
            capacity = max(capacity, figures["throughput"])
            yield f"closed {concurrency}", figures
        for share in contender.open_loads if capacity else ():
            figures = stage.measure(mix, self._plan.seconds, rate=share * capacity, seed=number)
            yield f"open {share:g}", {**figures, "offered": share * capacity}

    def _make_mixes(self) -> dict[str, list[str]]:
        run = load_run(self._run)
        mixes = texts.make_mixes(run, *texts.read_texts(self._plan.data))
        for mix, of in mixes.items():
            tokens = texts.lengths(run, of)
            about = {"texts": len(of), "mean_tokens": sum(tokens) / len(of), "longest": max(tokens)}
            self._found.mixes[mix] = about
        best = predict_probabilities(run, next(iter(mixes.values()))[:CHECKED]).argmax(-1)
        self._labels = [run.label_names[label] for label in best]
        return mixes

    def _limit(self, precision: str, number: int) -> Worker:
        folder = self._scratch / f"limit {precision} {number}"
        folder.mkdir()
        write_json(folder / "texts.json", self.mixes)
        module = [sys.executable, "-m", "benchmarks.serving.limit"]
        return Worker(
            [*module, str(folder / "texts.json"), str(self._plan.seconds)],
            environment(self._run, precision, 1, self._plan.threads),
            folder,
        )

    def _start_all(self, stack: ExitStack) -> Iterator[tuple[Contender, Stage]]:
        for contender in self._plan.contenders:
            _say(f"starting {contender.name}")
            bodies = {mix: [*map(contender.service.body, of)] for mix, of in self.mixes.items()}
            try:
                with ExitStack() as attempt:
                    stage = self._stage(contender, self._run.parent, bodies)
                    attempt.enter_context(stage)
                    self._check(contender, stage)
                    stack.enter_context(attempt.pop_all())
            except (EnvironmentFailedError, NotServingError) as error:
                self._found.failed[contender.name] = str(error)
                _say(f"{contender.name} is left out: {error}")
                continue
            self._record_start(contender, stage, 1)
            stage.server.pause()
            yield contender, stage

    def _stage(
        self, contender: Contender, models: Path, bodies: dict[str, Sequence[bytes]]
    ) -> Stage:
        launch = Launch(
            python=python_of(contender.service, self._plan.environments),
            port=free_port(),
            models=models,
            precision=contender.precision,
            workers=self._plan.workers,
            threads=self._plan.threads,
        )
        folder = tempfile.mkdtemp(prefix=f"{contender.service.name}-", dir=self._scratch)
        return Stage(contender.service, launch, self._run, bodies, Path(folder))

    def _check(self, contender: Contender, stage: Stage) -> None:
        """That a server answers many requests at once, and with the model's labels."""
        answers = stage.answers(next(iter(self.mixes)), CHECKED)
        labels = [None if answer is None else contender.service.label(answer) for answer in answers]
        same = sum(ours == theirs for ours, theirs in zip(labels, self._labels, strict=True))
        self._found.agreement[contender.name] = same / CHECKED
        if same < AGREEMENT * CHECKED:
            raise NotServingError(f"only {same} of {CHECKED} labels are the library's")


@contextmanager
def _running(stage: Stage) -> Iterator[None]:
    stage.server.go_on()
    try:
        yield
    finally:
        stage.server.pause()


def _together(limits: Sequence[Worker], question: dict[str, Any]) -> dict[str, Any]:
    """What processes do that measure the limit at the same time: the sum of their rates."""
    for limit in limits:
        limit.put(question)
    found = [limit.answer() for limit in limits]
    rates = {name: sum(each[name] for each in found) for name in ("forward", "tokenised")}
    single = median(each["single_ms"] for each in found)
    return {**found[0], **rates, "single_ms": single, "workers": len(found)}


def _is_ours(contender: Contender) -> bool:
    return contender.service.name == OURS


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
