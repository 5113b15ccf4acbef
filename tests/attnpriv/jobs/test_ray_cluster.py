"""On a real cluster of two nodes, which are two raylets of this machine."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from attnpriv.audit import tasks
from attnpriv.audit.leakage.shadow_folder import read_shadows
from attnpriv.audit.results import to_json
from attnpriv.audit.runner import AuditOptions, audit_runs
from attnpriv.config import AttentionConfig, PrivacyConfig, TrainConfig
from attnpriv.data.records import Dataset
from attnpriv.errors import InputError
from attnpriv.jobs import RayCluster, Told
from attnpriv.runs.folder import load_run
from attnpriv.shadows import train_shadows
from attnpriv.training import Candidate, tune

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.filterwarnings("ignore:.*accelerator:FutureWarning:ray"),
]
ROOT = Path(__file__).parents[3]
PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
TINY = AuditOptions.at("quick", documents=20, members=20, permutations=20, resamples=20)


def node() -> dict[str, int]:
    """Options of a node; Ray gives up where a busy machine is slow to say which ports it found."""
    options = {"num_cpus": 1, "object_store_memory": 200 * 2**20}
    with contextlib.ExitStack() as stack:
        for name in PORTS:  # open together, so that they differ
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            options[name] = probe.getsockname()[1]
    return options


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # by itself it would wait for other tests
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # workers for a Ray client are told no other path
    cluster = Cluster(initialize_head=True, head_node_args=node())
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    cluster.add_node(**node())
    cluster.wait_for_nodes()
    yield cluster
    cluster.shutdown()


@dataclass(frozen=True)
class Slow:
    """Squares numbers, four seconds each; -1 raises. Each attempt leaves a file.

    Attributes:
        attempts: a folder.
        is_packed: whether it was made ready for other machines.
    """

    resumable = True
    attempts: Path
    is_packed: bool = False

    def packed(self) -> "Slow":
        return Slow(self.attempts, is_packed=True)

    def begin(self) -> Callable[[int, Told], bytes]:
        assert self.is_packed

        def square(number: int, told: Told) -> bytes:
            if number == -1:
                raise InputError("expected a number from 0, got -1")
            (self.attempts / f"{number}-{os.getpid()}").touch()
            told(1, 2)
            time.sleep(4)
            return b"%d" % number**2

        return square


class Unreadable:
    """A job that another process has no code for."""

    resumable = True

    def packed(self) -> "Unreadable":
        return self

    def begin(self) -> Callable[[int, Told], bytes]:
        raise AssertionError

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return import_module, ("a_module_that_is_not_there",)


def kill_with_its_workers(raylet: int) -> None:
    """Let a node die at once, as a machine does whose power fails."""
    workers = Path(f"/proc/{raylet}/task/{raylet}/children").read_text(encoding="ascii").split()
    for process in (raylet, *map(int, workers)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_pieces_are_done_again_where_a_node_dies(cluster: Cluster, tmp_path: Path) -> None:
    begun: set[int] = set()

    def note(number: int, done: int, total: int) -> None:
        assert (done, total) == (1, 2)
        begun.add(number)
        if len(begun) == 2:  # one on each node
            kill_with_its_workers(raylet.pid)

    with RayCluster().crew(Slow(tmp_path)) as crew:
        ours = ray.get_runtime_context().get_node_id()
        (other,) = (node for node in cluster.list_all_nodes() if node.node_id != ours)
        raylet = other.all_processes["raylet"][0].process
        done = dict(crew(range(4), note))
    assert done == {number: b"%d" % number**2 for number in range(4)}
    assert len(list(tmp_path.iterdir())) > 4, "a piece was begun a second time"


def test_what_a_piece_raises_arrives_without_a_traceback(cluster: Cluster, tmp_path: Path) -> None:
    with RayCluster().crew(Slow(tmp_path)) as crew, pytest.raises(InputError) as raised:
        list(crew([-1], lambda *_: None))
    assert str(raised.value) == "expected a number from 0, got -1"


def test_an_audit_on_a_cluster_has_the_same_bits(
    cluster: Cluster, tiny_run: Path, tickets: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "CHUNK", 6)
    last: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        last[stage] = done, total

    def audited(executor: RayCluster | None) -> str:
        run = load_run(tiny_run)
        audit = audit_runs([run], tickets, None, TINY, progress, executor=executor)
        return json.dumps(to_json(audit, include_text=True), sort_keys=True, allow_nan=False)

    assert audited(RayCluster()) == audited(None)
    assert all(done == total for done, total in last.values())


def test_shadow_models_on_a_cluster_have_the_same_bits(
    cluster: Cluster, tiny_run: Path, tickets: Dataset, tmp_path: Path
) -> None:
    run = load_run(tiny_run)
    for name, executor in (("here", None), ("there", RayCluster())):
        train_shadows(run, tickets, tmp_path / name, models=8, executor=executor)
    here, there = (read_shadows(tmp_path / name).sha256 for name in ("here", "there"))
    assert here == there


def test_a_search_on_a_cluster_has_the_same_bits(
    cluster: Cluster, tickets: Dataset, tmp_path: Path
) -> None:
    config = TrainConfig(trainable="all", steps=2, batch_size=60)
    candidates = [Candidate(replace(config, head_learning_rate=rate)) for rate in (0.1, 0.5)]
    for name, executor in (("here", None), ("there", RayCluster())):
        tune(
            tickets,
            tmp_path / name / "run",
            encoder="scratch",
            attention=AttentionConfig(),
            candidates=candidates,
            privacy=PrivacyConfig(8.0, delta=1e-3, noise_seed=3),
            mean_runs=4,
            executor=executor,
        )
    for path in (tmp_path / "here" / "run").iterdir():
        assert path.read_bytes() == (tmp_path / "there" / "run" / path.name).read_bytes(), path.name


def test_work_that_a_machine_cannot_read_is_said_in_words(cluster: Cluster) -> None:
    with (
        pytest.raises(InputError, match="cannot read the work: expected attnpriv"),
        RayCluster().crew(Unreadable()) as crew,
    ):
        list(crew([1], lambda *_: None))


def _done_outside(cluster: RayCluster, folder: Path) -> dict[int, bytes]:
    """Two pieces of work; tried again where Ray's own server for a client does not start."""
    for _ in range(2):
        try:
            with cluster.crew(Slow(folder)) as crew:
                return dict(crew(range(2), lambda *_: None))
        except InputError as error:
            if "Initialization failure" not in str(error):
                raise
    with cluster.crew(Slow(folder)) as crew:
        return dict(crew(range(2), lambda *_: None))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ray's own sockets
def test_a_command_outside_of_the_cluster_goes_through_its_client_server(
    cluster: Cluster, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = [sys.executable, "-m", "ray.util.client.server", "--host=127.0.0.1"]
    server += [f"--port={port}", f"--address={cluster.address}", "--mode=proxy"]
    with subprocess.Popen(server) as process:
        try:
            done = _done_outside(RayCluster(f"ray://127.0.0.1:{port}"), tmp_path)
        finally:
            process.terminate()
    assert done == {0: b"0", 1: b"1"}


@pytest.mark.parametrize("address", ["", "here", "http://127.0.0.1:10001"])
def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(InputError, match="expected a Ray cluster as ray or ray://HOST:PORT"):
        RayCluster(address)


def test_no_cluster_at_an_address_is_said_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match="expected a Ray cluster at ray://127.0.0.1:1: "),
        RayCluster("ray://127.0.0.1:1").crew(Slow(tmp_path)),
    ):
        pass
