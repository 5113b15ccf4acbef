"""Servers are told to stop, and others take their places: calls go on, and none fails."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grpc
import pytest

from attnpriv.v1.attnpriv_pb2_grpc import add_AttnprivServiceServicer_to_server
from attnpriv_client import AsyncClient, Client

SECONDS = 120  # far beyond what anything here takes, on however slow a machine
# A stream alone fills half of the queue of a server; what finds it full waits.
THREADS, TASKS, STREAMS = 32, 50, 1
TEXT = "Where is my parcel?"


@dataclass(frozen=True)
class Running:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    def answered(self, method: str) -> int:
        """How many calls of a method it answered."""
        whole, _, _ = self.log.read_text().rpartition("\n")
        calls = map(json.loads, whole.splitlines())
        return sum(c["code"] == "OK" and c["method"].endswith(f"/{method}") for c in calls)


@contextmanager
def running(
    models: Path, log: Path, address: str = "127.0.0.1:0"
) -> Iterator[Callable[[], Running]]:
    """Start a server; the function waits until it answers."""
    program = Path(sys.executable).with_name("attnpriv-server")
    command = [program, "--models", models, "--listen", address, "--workers", "0"]
    with (
        log.open("w") as stderr,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        try:
            yield lambda: Running(process, process.stdout.readline().split()[-1], log)
        finally:
            process.kill()


@dataclass
class Callers:
    """Threads, tasks and streams that ask on and on; what each was answered, and what failed."""

    target: str
    model: str
    answers: list[int] = field(default_factory=lambda: [0] * (THREADS + TASKS + STREAMS))
    failures: list[Exception] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def until_each_has(self, more: int) -> None:
        """Wait until every one of them has some more answers."""
        wanted, end = [answered + more for answered in self.answers], time.monotonic() + SECONDS
        while any(map(int.__lt__, self.answers, wanted)):
            assert not self.failures
            assert time.monotonic() < end
            time.sleep(0.01)

    def threads(self) -> list[threading.Thread]:
        client = Client(self.target, SECONDS)
        numbers = count()
        blocking = [self._thread(self._call, client, next(numbers)) for _ in range(THREADS)]
        streams = [self._thread(self._stream, client, next(numbers)) for _ in range(STREAMS)]
        return [*blocking, *streams, self._thread(asyncio.run, self._tasks(THREADS + STREAMS))]

    def _thread(self, target: Callable[..., object], *args: object) -> threading.Thread:
        def guarded() -> None:
            try:
                target(*args)
            except Exception as error:
                self.failures.append(error)

        thread = threading.Thread(target=guarded)
        thread.start()
        return thread

    def _call(self, client: Client, number: int) -> None:
        while not self.done.is_set():
            client.predict(self.model, [TEXT])
            self.answers[number] += 1

    def _stream(self, client: Client, number: int) -> None:
        texts = iter(lambda: None if self.done.is_set() else TEXT, None)
        for _ in client.predict_stream(self.model, texts):
            self.answers[number] += 1

    async def _tasks(self, first: int) -> None:
        async def call(client: AsyncClient, number: int) -> None:
            while not self.done.is_set():
                await client.predict(self.model, [TEXT])
                self.answers[number] += 1

        async with AsyncClient(self.target, SECONDS) as client, asyncio.TaskGroup() as group:
            for number in range(first, first + TASKS):
                group.create_task(call(client, number))


class Names:
    """A name server on this machine, which gives every name the same addresses."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            query, asker = self._socket.recvfrom(4096)
            end = query.index(0, 12) + 5  # of the question: a name, its type and its class
            is_ipv4 = query[end - 3] == 1
            found = [
                struct.pack(">HHHIH", 0xC00C, 1, 1, 0, 4) + socket.inet_aton(address)
                for address in (self.addresses if is_ipv4 else ())
            ]
            head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(found), 0, 0)
            self._socket.sendto(head + query[12:end] + b"".join(found), asker)


@pytest.fixture
def start(private_run, tmp_path) -> Iterator[Callable[..., Callable[[], Running]]]:
    """Start a server; the function that it gives waits until that answers."""
    models = tmp_path / "models"
    shutil.copytree(private_run, models / "private")
    numbers = count()
    with ExitStack() as stack:
        yield lambda *address: stack.enter_context(
            running(models, tmp_path / f"log{next(numbers)}", *address)
        )


def stop(server: Running) -> None:
    server.process.terminate()
    assert server.process.wait(SECONDS) == 0


@pytest.mark.exhaustive
def test_a_rolling_restart_fails_no_call(start) -> None:
    first, second = [answering() for answering in [start(), start()]]
    callers = Callers(f"ipv4:{first.address},{second.address}", "private")
    threads = callers.threads()
    try:
        callers.until_each_has(2)
        stop(first)
        callers.until_each_has(2)
        replaced = start(first.address)()
        while not replaced.answered("Predict"):
            callers.until_each_has(1)
        stop(second)
        callers.until_each_has(2)
    finally:
        callers.done.set()
        for thread in threads:
            thread.join(SECONDS)

    assert callers.failures == []
    for server in (first, second, replaced):
        assert server.answered("Predict") > 0


def serving(servicer, address: str) -> tuple[grpc.Server, int]:
    server = grpc.server(ThreadPoolExecutor(4))
    add_AttnprivServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127/8 is this machine on Linux alone")
def test_a_server_that_is_replaced_under_another_address_of_its_name_is_found(echo) -> None:
    names, (old, new) = Names(), ("127.0.0.2", "127.0.0.3")
    leaving, port = serving(echo, f"{old}:0")
    names.addresses = [old]
    with Client(f"dns://127.0.0.1:{names.port}/servers.example:{port}", attempts=6) as client:
        client.predict("model", [TEXT])
        coming, _ = serving(echo, f"{new}:{port}")
        names.addresses = [new]
        time.sleep(1)  # the client may have asked for the addresses half a second ago
        leaving.stop(None).wait()
        client.predict("model", [TEXT])
        coming.stop(None).wait()
