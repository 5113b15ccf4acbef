"""A Ray cluster of this machine alone, for as long as a block lasts."""

from __future__ import annotations

import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

PORTS = (
    "metrics_agent_port",
    "metrics_export_port",
    "dashboard_agent_listen_port",
    "runtime_env_agent_port",
)
STORE_BYTES = 200 * 2**20


@contextmanager
def cluster(cores: int) -> Iterator[str]:
    """The address of a cluster with one node; ``RAY_ADDRESS`` names it meanwhile."""
    with warnings.catch_warnings(action="ignore"):  # Ray Serve uses what pydantic has deprecated
        from ray.cluster_utils import Cluster

    # Ray's own choice of 15 would leave its workers what other work on the machine leaves over.
    os.environ.setdefault("RAY_worker_niceness", "0")
    options: dict[str, Any] = {"num_cpus": cores, "object_store_memory": STORE_BYTES}
    # Ray gives up where a busy machine takes more than seconds to say which ports it has found.
    options |= dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    made = Cluster(initialize_head=True, head_node_args=options)
    os.environ["RAY_ADDRESS"] = str(made.address)
    try:
        yield str(made.address)
    finally:
        del os.environ["RAY_ADDRESS"]
        made.shutdown()


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
