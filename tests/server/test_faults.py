"""What goes wrong around a server: callers that vanish or flood, disks, models, its own end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv.runs.folder import Run, load_run
from attnpriv.sensitive import PresidioDetector, Rules, patterns
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_client import Client
from attnpriv_server.access import Access, new_token
from attnpriv_server.core import Core
from attnpriv_server.limits import Limits
from attnpriv_server.models.repository import Repository
from attnpriv_server.policy import Policies
from attnpriv_server.policy.files import Switches
from attnpriv_server.queueing import Batching
from attnpriv_server.telemetry import Telemetry

SECONDS = 120  # far beyond what anything here takes, on however slow a machine
TEXT = "Where is my parcel?"
CALLS = "attnpriv_server_calls_total"

# Callers that vanish


class Gate:
    """Lets forward passes of a model through one by one; counts them, and the texts before them."""

    def __init__(self, run: Run) -> None:
        self.passes = self.tokenised = 0
        self._free = threading.Semaphore(0)
        self._encode_batch = run.tokenizer.encode_batch
        run.tokenizer.encode_batch = self._count
        run.model.head.register_forward_pre_hook(self._hold)

    def open(self, passes: int) -> None:
        self._free.release(passes)

    def _count(self, texts, max_length):
        self.tokenised += len(texts)
        return self._encode_batch(texts, max_length)

    def _hold(self, module, args) -> None:
        self.passes += 1
        assert self._free.acquire(timeout=SECONDS)


@dataclass(frozen=True)
class Gated:
    """A server whose only model waits at a gate, one text a pass."""

    gate: Gate
    core: Core
    target: str

    def channel(self) -> grpc.Channel:
        # Without its own pool a channel shares connections with others to the same port.
        return grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)])

    def waiting(self, lane: str) -> float | None:
        registry = self.core.telemetry.registry
        return registry.get_sample_value("attnpriv_server_queue_rows", {"lane": lane})


@pytest.fixture
def gated(serve, make_core, private_run) -> Iterator[Callable[..., Gated]]:
    gates = []

    def start(access: Access | None = None) -> Gated:
        run = load_run(private_run)
        gates.append(gate := Gate(run))
        core = make_core(
            {"private": run},
            Switches(redact_sensitive_tokens=False).role(),
            batching=Batching(token_budget=1, capacity=64),
            access=access,
        )
        target = serve(core)._channel.target().decode()
        return Gated(gate, core, target.rpartition("/")[2])

    yield start
    for gate in gates:
        gate.open(10_000)


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread or process is about to do."""
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def predict_of(*texts: str) -> pb.PredictRequest:
    return pb.PredictRequest(model="private", texts=texts or [TEXT])


def explain_of(text: str) -> pb.ExplainRequest:
    return pb.ExplainRequest(model="private", text=text)


def endless(request: pb.PredictRequest) -> Iterator[pb.PredictStreamRequest]:
    return (pb.PredictStreamRequest(number=n, request=request) for n in range(1000))


@pytest.mark.parametrize("end", ["reset", "closed"])
def test_nothing_is_computed_for_callers_that_vanish(gated, end) -> None:
    server = gated()
    with server.channel() as polite, server.channel() as vanishing:
        first = AttnprivServiceStub(polite).Predict.future(predict_of())
        until(lambda: server.gate.passes == 1)
        stub = AttnprivServiceStub(vanishing)
        calls = [stub.Predict.future(predict_of("a", "b")) for _ in range(8)]
        calls += [stub.Explain.future(explain_of("a")) for _ in range(8)]
        calls += [stub.PredictStream(endless(predict_of("a"))) for _ in range(2)]
        # A stream has 16 requests under way; an explanation needs a prediction first.
        until(lambda: server.waiting("predict") == 16 + 8 + 32)

        if end == "reset":
            for call in calls:
                call.cancel()
        else:
            vanishing.close()
        until(lambda: server.waiting("predict") == 0)

        last = AttnprivServiceStub(polite).Predict.future(predict_of())
        until(lambda: server.waiting("predict") == 1)
        server.gate.open(2)
        assert first.result(SECONDS).predictions
        assert last.result(SECONDS).predictions
        assert server.gate.passes == 2


def test_an_explanation_stops_once_its_caller_is_gone(gated) -> None:
    server = gated()
    with server.channel() as polite, server.channel() as vanishing:
        explaining = AttnprivServiceStub(vanishing).Explain.future(explain_of("a b c"))
        until(lambda: server.gate.passes == 1)
        server.gate.open(1)
        until(lambda: server.gate.passes == 2)  # the prediction is there, the scores are begun

        explaining.cancel()
        code = server.core.telemetry.registry.get_sample_value
        until(lambda: code(CALLS, {"method": "other", "code": "CANCELLED"}) == 1)
        server.gate.open(2)

        assert AttnprivServiceStub(polite).Predict(predict_of(), timeout=SECONDS).predictions
        assert server.gate.passes == 3


# Callers that flood


def principals(folder: Path, *names: str) -> tuple[Access, dict[str, str]]:
    """Access for principals that may predict, and the token of each."""
    tokens = {name: new_token() for name in names}
    file = folder / "principals.toml"
    file.write_text(
        "".join(
            f'[[principal]]\nname = "{name}"\nroles = ["predict"]\n'
            f'tokens = [{{ sha256 = "{digest}" }}]\n'
            for name, (_, digest) in tokens.items()
        )
    )
    return Access.from_file(file), {name: token for name, (token, _) in tokens.items()}


@pytest.mark.parametrize("known", [False, True], ids=["by connection", "by principal"])
def test_a_flood_does_not_keep_others_from_their_turn(gated, tmp_path, known) -> None:
    """Where callers are known, connections do not count: the flood comes over several."""
    access, tokens = principals(tmp_path, "flood", "polite") if known else (None, {})
    server = gated(access)
    metadata = {name: [("authorization", f"Bearer {token}")] for name, token in tokens.items()}
    with ExitStack() as stack:
        flood = [stack.enter_context(server.channel()) for _ in range(4 if known else 1)]
        predict = [AttnprivServiceStub(channel).Predict.future for channel in flood]
        calls = [
            predict[n % len(flood)](predict_of(), None, metadata.get("flood")) for n in range(200)
        ]
        until(lambda: server.waiting("predict") == 64)
        polite = AttnprivServiceStub(stack.enter_context(server.channel())).Predict.future
        asked = [polite(predict_of(), None, metadata.get("polite")) for _ in range(5)]
        refused = 200 - 1 - 64 + 5  # the last five make room for the polite ones
        until(lambda: sum(call.done() for call in calls) == refused)

        server.gate.open(1 + 2 * len(asked) + 1)  # turn by turn, after the one that was begun

        assert all(call.result(SECONDS).predictions for call in asked)
        server.gate.open(1000)
        codes = Counter(call.code().name for call in calls)
        assert codes == {"OK": 200 - refused, "RESOURCE_EXHAUSTED": refused}


def test_a_full_server_puts_no_work_into_what_it_refuses(gated) -> None:
    server = gated()
    with server.channel() as channel:
        stub = AttnprivServiceStub(channel)
        calls = [stub.Predict.future(predict_of())]
        until(lambda: server.gate.passes == 1)
        calls += [stub.Predict.future(predict_of()) for _ in range(64)]
        until(lambda: server.waiting("predict") == 64)

        refused = [stub.Predict.future(predict_of("a", "b")), stub.Explain.future(explain_of("a"))]

        assert [call.code().name for call in refused] == ["RESOURCE_EXHAUSTED"] * 2
        assert server.gate.tokenised == len(calls)
        server.gate.open(len(calls))
        assert all(call.result(SECONDS).predictions for call in calls)


# Models that go away


@contextmanager
def watched(folder: Path, serve: Callable[[Core], grpc.Channel]) -> Iterator[AttnprivServiceStub]:
    """A server of the models in a folder, at which it looks all the time."""
    telemetry = Telemetry()
    with Repository(folder, "float32", None, telemetry, refresh_seconds=0.02) as models:
        core = Core(models, Access.anonymous(), Policies, Limits(), Batching(), telemetry)
        yield AttnprivServiceStub(serve(core))


@pytest.mark.exhaustive
def test_a_model_is_deleted_and_comes_back_while_it_is_asked(serve, private_run, tmp_path) -> None:
    folder = tmp_path / "models"
    for name in ("private", "other"):
        shutil.copytree(private_run, folder / name)
    codes: list[str] = []

    def predict(stub: AttnprivServiceStub) -> str:
        codes.append(stub.Predict.future(predict_of(), timeout=SECONDS).code().name)
        return codes[-1]

    with watched(folder, serve) as stub:
        assert predict(stub) == "OK"
        (folder / "private" / "model.safetensors").write_bytes(b"damaged")
        assert {predict(stub) for _ in range(20)} == {"OK"}  # the last good one stays
        shutil.rmtree(folder / "private")
        until(lambda: predict(stub) != "OK")
        other = pb.PredictRequest(model="other", texts=[TEXT])
        assert stub.Predict(other, timeout=SECONDS).predictions
        shutil.copytree(private_run, tmp_path / "copy")
        (tmp_path / "copy").rename(folder / "private")
        until(lambda: predict(stub) == "OK")
        shutil.rmtree(folder)
        assert {predict(stub) for _ in range(20)} == {"OK"}  # as if the disk were gone

    assert set(codes) == {"OK", "NOT_FOUND"}


# The process itself

COMMAND = [Path(sys.executable).with_name("attnpriv-server"), "--listen"]
CALLERS, KILLS = 32, 5
# How the last calls to a server end that stops. gRPC cancels those that it has received and not yet
# handed over (grpc/grpc#41785).
STOPPED = {"UNAVAILABLE", "CANCELLED"}


@contextmanager
def running(
    models: Path, stderr: Path, port: int, *options: str
) -> Iterator[subprocess.Popen[str]]:
    """The command, once it answers."""
    with (
        stderr.open("w") as log,
        subprocess.Popen(
            [*COMMAND, f"127.0.0.1:{port}", "--models", models, *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdout.readline() == f"listening on 127.0.0.1:{port}\n"
            yield process
        finally:
            process.kill()


@dataclass
class Callers:
    """Threads that ask again and again, each over a connection of its own, until it is refused."""

    target: str
    answers: list[str] = field(default_factory=list)  # a counter would lose some among threads
    ends: list[str] = field(default_factory=list)

    @property
    def answered(self) -> Counter[str]:
        return Counter(self.answers)

    def loop(self, method: str) -> None:
        request = predict_of("a", "b") if method == "Predict" else explain_of("a b")
        with grpc.insecure_channel(self.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            ask = getattr(AttnprivServiceStub(channel), method)
            try:
                while ask(request, timeout=SECONDS):
                    self.answers.append(method)
            except grpc.RpcError as error:
                self.ends.append(error.code().name)

    def start(self, pool: ThreadPoolExecutor) -> None:
        for number in range(CALLERS):
            pool.submit(self.loop, "Predict" if number % 8 else "Explain")
        until(lambda: self.answered["Predict"] > CALLERS and self.answered["Explain"] > 4)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def children(process: subprocess.Popen[str]) -> list[int]:
    """By whichever of its threads they were started."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    return [int(pid) for thread in threads for pid in (thread / "children").read_text().split()]


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks into /proc")
def test_killed_workers_lose_no_call(private_run, tmp_path) -> None:
    models, log, port = tmp_path / "models", tmp_path / "log", free_port()
    shutil.copytree(private_run, models / "private")

    with (
        ThreadPoolExecutor(CALLERS) as pool,
        running(models, log, port, "--workers", "1") as process,
    ):
        (callers := Callers(f"127.0.0.1:{port}")).start(pool)
        killed = set()
        for _ in range(KILLS):
            (worker,) = children(process)
            killed.add(worker)
            os.kill(worker, signal.SIGKILL)
            enough = callers.answered["Predict"] + 2 * CALLERS
            until(lambda enough=enough: callers.answered["Predict"] > enough)
        assert not callers.ends
        process.terminate()
        assert process.wait(SECONDS) == 0
        until(lambda: len(callers.ends) == CALLERS)

    assert len(killed) == KILLS
    assert set(callers.ends) <= STOPPED
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    deaths = [line for line in lines if line["logger"] == "attnpriv_server.workers"]
    assert [line["exit"] for line in deaths] == [-signal.SIGKILL] * KILLS
    answered = [line for line in lines if line.get("code") == "OK"]
    assert len(answered) == callers.answered.total()


@pytest.mark.exhaustive
def test_a_killed_server_starts_again_and_a_stopped_one_loses_nothing(
    private_run, tmp_path
) -> None:
    """First on a full disk, which takes no line of its log, then on one that does."""
    models, log = tmp_path / "models", tmp_path / "log"
    shutil.copytree(private_run, models / "private")
    port = free_port()
    target = f"127.0.0.1:{port}"

    with ThreadPoolExecutor(CALLERS + 1) as pool, Client(target, SECONDS, attempts=100) as patient:
        with running(models, Path("/dev/full"), port) as process:
            (first := Callers(target)).start(pool)
            process.kill()
            asked = pool.submit(patient.predict, "private", [TEXT])  # nobody is there to answer
            assert process.wait(SECONDS) == -signal.SIGKILL
        until(lambda: len(first.ends) == CALLERS)
        assert set(first.ends) == {"UNAVAILABLE"}
        assert load_run(models / "private").hashes == load_run(private_run).hashes

        with running(models, log, port) as process, grpc.insecure_channel(target) as channel:
            assert asked.result(SECONDS)[0].label
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            (second := Callers(target)).start(pool)
            process.terminate()
            assert [each.status for each in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
            assert process.wait(SECONDS) == 0
        until(lambda: len(second.ends) == CALLERS)

    assert set(second.ends) <= STOPPED
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["code"] for line in lines} <= {"OK", "UNAVAILABLE"}
    methods = [line["method"].rpartition("/")[2] for line in lines if line["code"] == "OK"]
    told = Counter(methods) - Counter(["Predict", "Watch"])  # the patient one's, and ours
    assert told == second.answered


def test_a_text_that_cannot_be_searched_for_personal_data_is_refused(
    serve, make_core, models, monkeypatch
) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.2)
    slow = {"entity_type": "SLOW", "patterns": [r"(x+x+)+y"]}
    rules = Rules.model_validate({"language_model": "none", "recognizers": [slow]})
    stub = AttnprivServiceStub(serve(make_core(models, detector=PresidioDetector(rules))))

    with pytest.raises(grpc.RpcError) as caught:
        stub.Explain(explain_of("x" * 4000))

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == (
        "text: expected a text that can be searched for personal data in the time there is"
    )
    assert stub.Explain(explain_of("nothing of it")).tokens
