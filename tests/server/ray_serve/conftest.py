"""The files of deploy/ at work: real Ray, a real Envoy, a real PostgreSQL, all on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

with warnings.catch_warnings(action="ignore"):  # Ray Serve uses what pydantic has deprecated
    import ray.serve  # noqa: F401

from ray.cluster_utils import Cluster

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from tests.server.budget.postgres import PostgresServer, fast_folder
from tests.server.transport.callers import EVERY_ROLE, bearer, table
from tests.server.transport.certificates import CLIENTS, Files, Pair, new_pair

DEPLOY = Path(__file__).parents[3] / "deploy"
PROGRAMS = Path(sys.executable).parent
SECRET, TOKEN = "the secret of the front", "the token of a script"
# Each answer that is drawn takes one of them, exactly.
ALLOWED = 40
POLICY = f"""
[roles.everyone]
predict = {{ label = {{ read = "redacted" }}, probabilities = {{ read = "redacted" }} }}
explain = {{ tokens = {{ read = "redacted" }}, key = {{ epsilon = 1 }} }}
budget = {{ epsilon = {ALLOWED}, period = "for ever" }}
"""
START_SECONDS = 600  # on a busy machine
STORE_BYTES = 200 * 2**20
PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)


@dataclass
class Serving:
    """What is served, and from where.

    Attributes:
        folder: of all files.
        database: URL of the budget.
        cluster: address of Ray.
        session: folder of what this cluster writes.
        configuration: of Ray Serve.
        proxy: port of Ray's own gRPC proxy.
        front: port of Envoy.
        authority: who signed all certificates.
    """

    folder: Path
    database: str
    cluster: str
    session: Path
    configuration: dict[str, Any]
    authority: Pair
    proxy: int = field(default_factory=lambda: free_port())
    front: int = field(default_factory=lambda: free_port())

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def deploy(self, **arguments: object) -> None:
        """Have Ray Serve run the configuration, with some other arguments."""
        (application,) = self.configuration["applications"]
        application["args"] |= arguments
        file = self.folder / "ray-serve.yaml"
        file.write_text(yaml.safe_dump(self.configuration))
        command = [PROGRAMS / "serve", "run", "--non-blocking", "--address", self.cluster, file]
        subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)

    def replicas(self) -> list[int]:
        """The processes of the replicas."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if command.startswith(b"ray::ServeReplica:attnpriv:") and self._is_ours(process):
                    found.append(int(process.name))
        return found

    def _is_ours(self, process: Path) -> bool:
        """Whether it was started by our cluster, not by another on the same machine."""
        status = (process / "status").read_text()
        parent = status.partition("PPid:")[2].split()[0]
        return self.cluster.encode() in Path(f"/proc/{parent}/cmdline").read_bytes()

    def channel(self, certificate: str | None = "reports") -> grpc.Channel:
        """To the front, with a client's certificate of that name."""
        pair = None if certificate is None else new_pair(certificate, self.authority, CLIENTS)
        credentials = grpc.ssl_channel_credentials(
            self.authority.pem, pair and pair.key_pem, pair and pair.pem
        )
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(f"localhost:{self.front}", credentials, options)


def wait_until(true: Callable[[], object], seconds: float = START_SECONDS) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.2)


def answers(stub: AttnprivServiceStub) -> bool:
    try:
        stub.ListModels(pb.ListModelsRequest(), timeout=5)
    except grpc.RpcError:
        return False
    return True


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # by itself it would wait for other tests
        options = {"num_cpus": 4, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        # Ray gives up where a busy machine takes more than seconds to say which ports it has found.
        ports = {name: free_port() for name in PORTS}
        cluster = Cluster(initialize_head=True, head_node_args=options | ports)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    server = PostgresServer(fast_folder())
    yield server.url
    server.close()


@pytest.fixture(scope="module")
def serving(
    cluster: Cluster, database: str, private_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    configuration = yaml.safe_load((DEPLOY / "ray-serve.yaml").read_text())
    authority = new_pair("authority")
    folder = tmp_path_factory.mktemp("serving")
    # /tmp/ray/session_latest may be of a cluster that other tests have started since.
    session = Path(cluster.head_node.get_session_dir_path())
    serving = Serving(folder, database, cluster.address, session, configuration, authority)
    shutil.copytree(private_run, serving.models / "mail" / "1")
    (folder / "policy.toml").write_text(POLICY)
    (folder / "principals.toml").write_text(
        table("script", EVERY_ROLE, TOKEN) + table("reports", EVERY_ROLE, certificate="reports")
    )
    configuration["http_options"]["port"] = free_port()
    configuration["grpc_options"]["port"] = serving.proxy
    (deployment,) = configuration["applications"][0]["deployments"]
    deployment["ray_actor_options"] = {"num_cpus": 1}  # memory would be that of this machine
    serving.deploy(
        models=str(serving.models),
        policy=str(folder / "policy.toml"),
        principals=str(folder / "principals.toml"),
        budget=database,
        front=hashlib.sha256(SECRET.encode()).hexdigest(),
    )
    with front(serving):
        with serving.channel() as channel:
            stub = AttnprivServiceStub(channel)
            wait_until(lambda: answers(stub) and len(serving.replicas()) == 2)
        yield serving


@contextmanager
def front(serving: Serving) -> Iterator[None]:
    """Envoy by the file in deploy/, at other ports and with other certificates."""
    pair = new_pair("localhost", serving.authority)
    names = ("tls.crt", "tls.key", "clients.crt", "unused")
    Files(*(serving.folder / name for name in names)).write(pair, serving.authority.pem)
    text = (DEPLOY / "envoy.yaml").read_text()
    for old, new in (
        ("/tls/", f"{serving.folder}/"),
        ("0.0.0.0, port_value: 50051", f"127.0.0.1, port_value: {serving.front}"),
        ("port_value: 9000", f"port_value: {serving.proxy}"),
    ):
        assert old in text
        text = text.replace(old, new)
    file = serving.folder / "envoy.yaml"
    file.write_text(text)
    options = ("--use-dynamic-base-id", "--concurrency", "1", "--log-level", "error")
    with subprocess.Popen(
        [PROGRAMS / "envoy", "--config-path", file, *options],
        env=os.environ | {"ATTNPRIV_FRONT": SECRET},
    ) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.fixture
def stub(serving: Serving) -> Iterator[AttnprivServiceStub]:
    with serving.channel() as channel:
        yield AttnprivServiceStub(channel)


@pytest.fixture
def token() -> tuple[tuple[str, str], ...]:
    return bearer(TOKEN)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
