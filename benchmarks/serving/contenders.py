"""Who is measured: how each is started, asked and understood, and under which loads."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from attnpriv.v1 import attnpriv_pb2 as pb

MODEL = "model"  # the name of the run folder
METHOD = "/attnpriv.v1.AttnprivService/Predict"
CONCURRENCY = (1, 8, 32, 128)
COMPARED = 32  # the concurrency at which servers are compared
OPEN_LOADS = (0.5, 0.8, 0.95)  # as shares of the best closed loop
OPEN_COMPARED = 0.8
OURS, NAIVE = "attnpriv", "naive"

# Only the peers serve HTTP, and each is installed at the version that this was written against.
# aiohttp is what they are asked with.
AIOHTTP = "aiohttp==3.14.5"


@dataclass(frozen=True)
class Launch:
    """What a server is to be started with."""

    python: Path
    port: int
    models: Path
    precision: str
    workers: int
    threads: int


@dataclass(frozen=True)
class Service:
    """A server, as it is started and as it is asked.

    Attributes:
        name: in the report.
        command: what starts it.
        body: the request of a text.
        label: the label in an answer.
        path: of its URL; None where it is asked over gRPC.
        packages: what its own environment holds beside attnpriv; none for this environment.
    """

    name: str
    command: Callable[[Launch], list[str]]
    body: Callable[[str], bytes]
    label: Callable[[bytes], str]
    path: str | None = None
    packages: tuple[str, ...] = ()

    def target(self, port: int) -> list[str]:
        """Arguments of the generator."""
        if self.path is None:
            return ["--grpc", METHOD, f"127.0.0.1:{port}"]
        return [f"http://127.0.0.1:{port}{self.path}"]


@dataclass(frozen=True)
class Contender:
    """A service in one precision, and what is measured of it.

    Attributes:
        service: the server.
        precision: of the model.
        concurrency: of the closed loops.
        open_loads: of the open loops.
    """

    service: Service
    precision: str
    concurrency: tuple[int, ...] = CONCURRENCY
    open_loads: tuple[float, ...] = (OPEN_COMPARED,)

    @property
    def name(self) -> str:
        """Of both."""
        return f"{self.service.name} {self.precision}"

    @property
    def brief(self) -> Contender:
        """The same where only the comparison is of interest."""
        return replace(self, concurrency=(COMPARED,), open_loads=())


def contenders(precision: str) -> list[Contender]:
    """All of them, with ``precision`` being that of our server; peers come in float32 too.

    The whole of the loads is measured of our server alone. Peers are measured under most of them in
    our precision, in which they do the same work; float32, which their users would get, is measured
    at the concurrency that is compared.
    """
    ours, naive, *peers = SERVICES
    found = [Contender(ours, precision, open_loads=OPEN_LOADS), Contender(naive, "float32")]
    found += [Contender(peer, precision) for peer in peers]
    if precision != "float32":
        found += [Contender(service, "float32").brief for service in (ours, *peers)]
    return found


def request(model: str, text: str) -> bytes:
    """A request of our wire contract."""
    return pb.PredictRequest(model=model, texts=[text]).SerializeToString()


def our_command(launch: Launch) -> list[str]:
    """The command of our server, as a user would call it."""
    return [
        str(launch.python.with_name("attnpriv-server")),
        *("--models", str(launch.models), "--listen", f"127.0.0.1:{launch.port}"),
        *("--workers", str(launch.workers), "--threads", str(launch.threads)),
        *("--precision", launch.precision),
    ]


def _module(name: str) -> Callable[[Launch], list[str]]:
    return lambda launch: [
        str(launch.python),
        *("-m", f"benchmarks.serving.{name}", str(launch.port)),
    ]


def _grpc_body(text: str) -> bytes:
    return request(MODEL, text)


def _grpc_label(answer: bytes) -> str:
    return pb.PredictResponse.FromString(answer).predictions[0].label


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _mlserver_body(text: str) -> bytes:
    texts = {"name": "texts", "shape": [1], "datatype": "BYTES", "data": [text]}
    return _json({"inputs": [texts]})


SERVICES = (
    Service(OURS, our_command, _grpc_body, _grpc_label),
    Service(NAIVE, _module(NAIVE), _grpc_body, _grpc_label),
    Service(
        "litserve",
        _module("peers.litserve"),
        body=lambda text: _json({"text": text}),
        label=lambda answer: json.loads(answer)["label"],
        path="/predict",
        packages=("litserve==0.2.19", AIOHTTP),
    ),
    Service(
        "ray_serve",
        _module("peers.ray_serve"),
        body=lambda text: _json({"text": text}),
        label=lambda answer: json.loads(answer)["label"],
        path="/",
        packages=("ray[serve]==2.60.0", AIOHTTP),
    ),
    Service(
        "bentoml",
        _module("peers.bentoml"),
        body=lambda text: _json({"texts": [text]}),
        label=lambda answer: json.loads(answer)[0],
        path="/predict",
        packages=("bentoml==1.4.39", AIOHTTP),
    ),
    Service(
        "mlserver",
        _module("peers.mlserver"),
        body=_mlserver_body,
        label=lambda answer: json.loads(answer)["outputs"][0]["data"][0],
        path="/v2/models/labels/infer",
        # Its workers look for an event loop that there is not yet; uvloop 0.22 stopped making one.
        packages=("mlserver==1.7.1", "uvloop==0.21.0", AIOHTTP),
    ),
)
