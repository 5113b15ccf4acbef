"""How much may be asked at once, and how long connections last."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv_server.limits import Limits
from attnpriv_server.transport import server_credentials
from tests.server.transport.callers import SECONDS, check, code_of, plain
from tests.server.transport.frames import PING, PREFACE, SETTINGS, headers


def test_large_messages_and_headers_are_refused_however_they_are_packed(serve) -> None:
    limits = Limits(message_bytes=10_000, metadata_bytes=20_000)
    with plain(serve(limits=limits)) as channel:
        echo = channel.unary_unary("/attnpriv.v1.AttnprivService/Predict")

        def send(size: int, compression=None, header: int = 0) -> str:
            metadata = [("x", "y" * header)]
            return code_of(lambda: echo(b"\xff" * size, SECONDS, metadata, None, None, compression))

        assert send(10_000) == "INVALID_ARGUMENT"
        assert send(10_001) == "RESOURCE_EXHAUSTED"
        assert send(1_000_000, grpc.Compression.Gzip) == "RESOURCE_EXHAUSTED"
        assert {send(1, header=19_000) for _ in range(5)} == {"INVALID_ARGUMENT"}
        assert {send(1, header=20_000) for _ in range(5)} == {"RESOURCE_EXHAUSTED"}


def test_connections_beyond_the_limit_find_no_place_until_one_is_free(serve) -> None:
    port = serve(limits=Limits(connections=2))
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]

    assert check(plain(port)) == "UNAVAILABLE"
    for each in sockets:
        each.close()
    with plain(port) as channel:
        request = health_pb2.HealthCheckRequest()
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(request, wait_for_ready=True, timeout=SECONDS)


def test_calls_beyond_the_streams_of_a_connection_wait_in_the_client(serve) -> None:
    with plain(serve(limits=Limits(streams=2))) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        watches = [stub.Watch(request, timeout=SECONDS) for _ in range(2)]
        for watch in watches:
            next(watch)

        waiting = stub.Check.future(request, timeout=SECONDS)
        late = stub.Check.future(request, timeout=0.2)
        assert late.code().name == "DEADLINE_EXCEEDED"
        watches[0].cancel()
        assert waiting.code().name == "OK"


def test_bursts_within_the_limits_lose_no_call(serve) -> None:
    port = serve(limits=Limits(streams=300))
    with ExitStack() as stack:
        channels = [stack.enter_context(plain(port)) for _ in range(5)]
        stubs = [health_pb2_grpc.HealthStub(channel) for channel in channels]
        request = health_pb2.HealthCheckRequest()
        calls = [stub.Check.future(request, timeout=60) for _ in range(400) for stub in stubs]

        assert {call.code().name for call in calls} == {"OK"}


def ended(connection: socket.socket) -> bytes:
    """What a connection carried until the server closed it."""
    connection.settimeout(SECONDS)
    parts = []
    with connection:
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def test_the_server_closes_connections_that_are_silent_idle_dead_or_old(serve, files) -> None:
    credentials = server_credentials(files.certificate, files.key)
    short = serve(
        limits=Limits(handshake_seconds=1, idle_seconds=1, connection_seconds=1, stream_seconds=1)
    )
    encrypted = serve(credentials, limits=Limits(handshake_seconds=1))
    asking = serve(limits=Limits(silence_seconds=1))
    with ThreadPoolExecutor() as pool:

        def open_to(port: int, sent: bytes = b""):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(sent)
            return pool.submit(ended, connection)

        silent = [open_to(short), open_to(short, PREFACE), open_to(encrypted)]
        idle = open_to(short, PREFACE + SETTINGS)
        dead = pool.submit(answer_one_ping, asking)
        with plain(short) as channel:
            request = health_pb2.HealthCheckRequest()
            watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=SECONDS)
            with pytest.raises(grpc.RpcError) as end:
                list(watch)

        assert (end.value.code().name, end.value.details()) == ("UNAVAILABLE", "max connection age")
        assert all(connection.result() is not None for connection in silent)
        assert b"connection idle" in idle.result()
        assert b"ping timeout" in dead.result()


def answer_one_ping(port: int) -> bytes:
    """What a connection with an open call carries if its client falls silent after one ping.

    The first comes with the first data, to measure the connection; the next asks for signs of life.
    """
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    connection.sendall(PREFACE + SETTINGS + headers("/grpc.health.v1.Health/Watch"))
    received = b""
    while (start := received.find(PING)) < 0 or len(received) < start + 17:
        received += connection.recv(65536)
    payload = received[start + 9 : start + 17]
    connection.sendall(PING[:4] + b"\x01" + PING[5:] + payload)
    return ended(connection)
