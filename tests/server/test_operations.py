"""The operators' endpoint over real sockets."""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from attnpriv.errors import InputError
from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server import guard, operations
from attnpriv_server.address import Address
from attnpriv_server.operations import CONNECTIONS, HEAD_BYTES, Operations
from attnpriv_server.telemetry import Telemetry
from attnpriv_server.wire import Server

MARK = "tell-tale"


class Endpoint:
    """A running endpoint, and a plain client of it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def request(self, path: str, method: str = "GET") -> tuple[int, http.client.HTTPMessage, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.headers, response.read().decode()
        finally:
            connection.close()

    def status(self, path: str) -> int:
        return self.request(path)[0]

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, sent: bytes) -> bytes:
        with self.connect() as connection, connection.makefile("rb") as answer:
            connection.sendall(sent)
            return answer.readline()


def is_closed(connection: socket.socket) -> bool:
    """Wait until the other side closes: in order, or by a reset where it left bytes unread."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


@contextmanager
def event_loop() -> Iterator[Callable[[Coroutine], Any]]:
    """Runs coroutines in an event loop of its own thread, and waits for them."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def operating(telemetry: Telemetry, ready: Callable[[], bool]) -> Iterator[Endpoint]:
    operations = Operations(telemetry, ready)
    with event_loop() as run:
        try:
            yield Endpoint(run(operations.start(Address("127.0.0.1", 0))))
        finally:
            run(operations.stop())


@pytest.fixture(scope="module")
def telemetry() -> Telemetry:
    return Telemetry(["/a/B"])


@pytest.fixture(scope="module")
def ready() -> list[bool]:
    return [True]


@pytest.fixture(scope="module")
def endpoint(telemetry, ready) -> Iterator[Endpoint]:
    with operating(telemetry, lambda: ready[0]) as found:
        yield found


def test_metrics_are_in_the_text_format(endpoint, telemetry) -> None:
    telemetry.call_finished("/a/B", "OK", 0.5)

    status, headers, body = endpoint.request("/metrics?anything")

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(body)}
    assert {"attnpriv_server_calls", "process_resident_memory_bytes"} <= names


def test_readiness_follows_the_models(endpoint, ready) -> None:
    assert endpoint.status("/readyz") == 200
    ready[0] = False
    assert endpoint.status("/readyz") == 503
    assert endpoint.status("/livez") == 200
    ready[0] = True
    assert endpoint.status("/readyz") == 200


def test_a_failing_check_shows_no_text(telemetry, caplog) -> None:
    def failing() -> bool:
        raise ValueError(MARK)

    with operating(telemetry, failing) as broken:
        status, headers, body = broken.request("/readyz")

    assert status == 500
    assert MARK not in str(headers) + body + caplog.text
    assert [record.fields["error"] for record in caplog.records] == ["ValueError"]


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/nowhere"])
def test_head_answers_like_get_without_a_body(endpoint, path) -> None:
    status, headers, _ = endpoint.request(path, "HEAD")
    got_status, got_headers, _ = endpoint.request(path)
    with endpoint.connect() as connection, connection.makefile("rb") as answer:
        connection.sendall(f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
        assert answer.read().endswith(b"\r\n\r\n")

    assert status == got_status
    assert set(headers) == set(got_headers)
    assert int(headers["Content-Length"]) > 0


def test_nothing_is_echoed_and_no_banner_is_shown(endpoint) -> None:
    status, headers, body = endpoint.request(f"/{MARK}?{MARK}")

    assert status == 404
    assert MARK not in str(headers) + body
    assert "Server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "ANYTHING"])
def test_other_methods_are_refused(endpoint, method) -> None:
    status, headers, _ = endpoint.request("/metrics", method)

    assert status == 405
    assert headers["Allow"] == "GET, HEAD"


def test_a_body_is_not_waited_for(endpoint) -> None:
    head = b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n"

    assert endpoint.raw(head).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET http://127.0.0.1/livez HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /livez HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * (HEAD_BYTES - 100) + b"\r\n\r\n", b"200"),
        (b"GET /livez HTTP/1.1\r\nX: " + b"x" * HEAD_BYTES + b"\r\n\r\n", b"431"),
    ],
)
def test_what_is_not_a_small_request_is_refused(endpoint, sent, answer) -> None:
    assert endpoint.raw(sent).split(b" ")[1] == answer


def test_slow_clients_keep_nobody_out_and_hold_no_thread(endpoint, monkeypatch) -> None:
    monkeypatch.setattr(operations, "SECONDS", 120)
    threads = threading.active_count()
    with ExitStack() as stack:
        slow = [stack.enter_context(endpoint.connect()) for _ in range(3 * CONNECTIONS)]
        for connection in slow:
            connection.sendall(b"GET /livez HTTP/1.1\r\nX: ")

        assert endpoint.status("/livez") == 200
        assert is_closed(slow[0])
        assert threading.active_count() == threads


def test_a_silent_connection_is_closed(endpoint, monkeypatch) -> None:
    monkeypatch.setattr(operations, "SECONDS", 0.05)
    with endpoint.connect() as silent:
        assert is_closed(silent)


def test_stopping_closes_port_and_connections(telemetry, caplog, monkeypatch) -> None:
    monkeypatch.setattr(operations, "SECONDS", 120)
    with operating(telemetry, lambda: True) as stopped:
        idle = stopped.connect()
        assert stopped.status("/livez") == 200
    # Not a line about connections that went away: it would show whose they were.
    with idle:
        assert is_closed(idle)
    with pytest.raises(ConnectionRefusedError):
        stopped.connect()
    assert not caplog.records


def test_a_port_in_use_is_bad_input(endpoint, telemetry) -> None:
    listen = Address("127.0.0.1", endpoint.port)

    with pytest.raises(InputError, match=f"cannot listen on {listen}"):
        asyncio.run(Operations(telemetry, lambda: True).start(listen))


def test_a_stopping_server_says_so_first_and_turns_callers_away_then(
    make_core, models, monkeypatch
) -> None:
    monkeypatch.setattr(guard, "QUIET_SECONDS", 1.0)  # time enough for a call, on a slow machine
    core = make_core(models)

    async def start() -> tuple[Server, Operations, int]:
        server = Server(core, "127.0.0.1:0")
        operations = Operations(core.telemetry, server.ready)
        await server.start()
        return server, operations, await operations.start(Address("127.0.0.1", 0))

    with event_loop() as run:
        server, operations, port = run(start())
        endpoint = Endpoint(port)
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = AttnprivServiceStub(channel)
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert next(health).status == health_pb2.HealthCheckResponse.SERVING
            assert endpoint.status("/readyz") == 200

            stopping = run(begin(server.stop(grace=60)))

            assert next(health).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert stub.ListModels(pb.ListModelsRequest(), timeout=60).models
            assert endpoint.status("/readyz") == 503
            assert endpoint.status("/livez") == 200
            assert list(health) == []
            run(finish(stopping))
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListModels(pb.ListModelsRequest(), timeout=60)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        run(operations.stop())


async def begin(coroutine: Coroutine) -> asyncio.Task:
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


async def finish(task: asyncio.Task) -> None:
    await task
