"""Requests a second through Ray Serve beside our own server: same model, same run, in turns."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from benchmarks.scale.cluster import cluster, free_ports

PROGRAMS = Path(sys.executable).parent
CALLERS = (1, 32)
START_SECONDS = 600
REQUEST = pb.PredictRequest(
    model="tickets", texts=["my parcel has not arrived and nobody answers the telephone"]
)


def measure(models: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians of the rounds, by contender and number of callers."""
    found: dict[str, dict[str, list[float]]] = {}
    with _own(models) as own, cluster(4) as address, _ray_serve(models, address) as ray:
        targets = {"own server, 2 workers": own, "ray serve, 2 replicas": ray}
        for _ in range(rounds):
            for name, target in targets.items():
                for callers in CALLERS:
                    for key, value in asyncio.run(_ask(target, callers, seconds)).items():
                        values = found.setdefault(name, {})
                        values.setdefault(f"{key} {callers}", []).append(value)
    medians = {
        name: {key: statistics.median(each) for key, each in values.items()}
        for name, values in found.items()
    }
    return {"rounds": rounds, "seconds": seconds, **medians}


async def _ask(target: str, callers: int, seconds: float) -> dict[str, float]:
    times: list[float] = []
    async with grpc.aio.insecure_channel(target) as channel:
        predict = AttnprivServiceStub(channel).Predict
        for _ in range(10):
            await predict(REQUEST)
        ends = time.perf_counter() + seconds

        async def call() -> None:
            while (began := time.perf_counter()) < ends:
                await predict(REQUEST)
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        took = time.perf_counter() - began
    return {
        "requests_a_second": len(times) / took,
        "median_milliseconds": 1000 * statistics.median(times),
    }


@contextmanager
def _own(models: Path) -> Iterator[str]:
    command = [PROGRAMS / "attnpriv-server", "--models", models, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [*command, "--workers", "2"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


@contextmanager
def _ray_serve(models: Path, address: str) -> Iterator[str]:
    http, port = free_ports(2)
    configuration = {
        "http_options": {"host": "127.0.0.1", "port": http},
        "grpc_options": {
            "port": port,
            "grpc_servicer_functions": ["attnpriv_server.ray_serve.proxy:add_services"],
            "enable_reflection": False,
        },
        "applications": [
            {
                "name": "attnpriv",
                "import_path": "attnpriv_server.ray_serve.app:app",
                "args": {"models": str(models), "insecure": True},
                "deployments": [{"name": "attnpriv", "num_replicas": 2}],
            }
        ],
    }
    file = models.parent / "ray-serve.yaml"
    file.write_text(yaml.safe_dump(configuration))
    command = [PROGRAMS / "serve", "run", "--non-blocking", "--address", address, file]
    subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS)
    target = f"127.0.0.1:{port}"
    _wait(target)
    yield target


def _wait(target: str) -> None:
    """Until it answers, and for both replicas to."""
    ends = time.monotonic() + START_SECONDS
    answered = 0
    with grpc.insecure_channel(target) as channel:
        while answered < 50:
            try:
                AttnprivServiceStub(channel).Predict(REQUEST, timeout=30)
                answered += 1
            except grpc.RpcError:
                if time.monotonic() > ends:
                    raise
                time.sleep(1)
    time.sleep(20)
