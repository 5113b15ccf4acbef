"""Two kinds of servers: the real one in a process of its own, and scripted ones.

A scripted server speaks the real protocol over a real socket, and fails as a test wants it to.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from attnpriv.runs.folder import Run, load_run
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import (
    AttnprivServiceServicer,
    add_AttnprivServiceServicer_to_server,
)
from attnpriv_client import AsyncClient, Client
from attnpriv_client.cli import main


@pytest.fixture(scope="session")
def run(private_run: Path) -> Run:
    return load_run(private_run)


@pytest.fixture(scope="session")
def run_server(private_run: Path, tmp_path_factory) -> Callable[..., AbstractContextManager[str]]:
    """Run a real server with options; its address."""
    models = tmp_path_factory.mktemp("served")
    shutil.copytree(private_run, models / private_run.name)
    program = Path(sys.executable).with_name("attnpriv-server")
    command = [program, "--models", models, "--listen", "127.0.0.1:0", "--precision", "float32"]

    @contextmanager
    def run(*options: str | Path) -> Iterator[str]:
        with subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            try:
                line = process.stdout.readline()
                assert line.startswith("listening on ")
                yield line.removeprefix("listening on ").strip()
            finally:
                process.terminate()

    return run


@pytest.fixture(scope="session")
def target(run_server) -> Iterator[str]:
    """The address of a real server that lets everybody in."""
    with run_server() as address:
        yield address


class Echo(AttnprivServiceServicer):
    """Answers every text with itself for its label; remembers what it was asked.

    Attributes:
        on_call: called with the context before a Predict is answered, as to abort it.
        stream: answers a PredictStream, given its requests and the context.
    """

    def __init__(self) -> None:
        self.requests: list = []
        self.metadata: list[dict[str, str]] = []
        self.on_call = lambda context: None
        self.stream = lambda requests, context: map(self.answer, requests)

    def answer(self, request: pb.PredictStreamRequest) -> pb.PredictStreamResponse:
        self.requests.append(request)
        return pb.PredictStreamResponse(
            number=request.number, response=self.predictions(request.request)
        )

    def predictions(self, request: pb.PredictRequest) -> pb.PredictResponse:
        predictions = [pb.Prediction(label=text) for text in request.texts]
        return pb.PredictResponse(predictions=predictions, version="1")

    def Predict(self, request, context):  # noqa: N802
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.on_call(context)
        return self.predictions(request)

    def PredictStream(self, requests, context):  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        yield from self.stream(requests, context)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a scripted server; its address."""
    servers = []

    def start(servicer, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> str:
        server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        add_AttnprivServiceServicer_to_server(servicer, server)
        if credentials is None:
            port = server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        server.start()
        servers.append(server)
        return f"localhost:{port}"

    yield start
    for server in servers:
        server.stop(None).wait()


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request) -> Callable[..., Any]:
    """Call a method of one of the clients; a stream is read to its end."""

    def blocking(target: str, method: str, *arguments, **options) -> Any:
        with Client(target, **options) as client:
            answer = getattr(client, method)(*arguments)
            return list(answer) if method == "predict_stream" else answer

    async def with_asyncio(target: str, method: str, *arguments, **options) -> Any:
        async with AsyncClient(target, **options) as client:
            answer = getattr(client, method)(*arguments)
            if method == "predict_stream":
                return [each async for each in answer]
            return await answer

    if request.param == "blocking":
        return blocking
    return lambda *arguments, **options: asyncio.run(with_asyncio(*arguments, **options))


@dataclass
class Done:
    """What a command left."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Done]:
    """Run attnpriv-client in this process, which takes a tenth of the time of one of its own."""

    def run(*arguments: str, stdin: bytes = b"") -> Done:
        monkeypatch.setattr(sys, "argv", ["attnpriv-client", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def output(command) -> Callable[..., str]:
    """Run attnpriv-client, which must succeed; what it printed."""

    def run(*arguments: str, stdin: bytes = b"") -> str:
        done = command(*arguments, stdin=stdin)
        assert (done.code, done.stderr) == (0, "")
        return done.stdout

    return run
