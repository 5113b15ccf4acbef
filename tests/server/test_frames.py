"""What no gRPC client sends: frames, floods and silence straight from a socket.

All of it goes to a server of this process on 127.0.0.1, in a bounded number of bytes. A polite
client on a connection of its own is answered all the while, and memory stays flat.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Self, TypeVar

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attnpriv.v1 import attnpriv_pb2 as pb
from attnpriv.v1.attnpriv_pb2_grpc import AttnprivServiceStub
from attnpriv_server.access import Access, new_token
from attnpriv_server.core import Core
from attnpriv_server.limits import Limits
from attnpriv_server.wire import Server

T = TypeVar("T")

SECONDS = 60  # far beyond what anything here takes
MEGABYTE = 2**20
# Of resident memory, at the worst moment; a message may take 4 MB, in wire and in parsed form.
GROWTH = 48 * MEGABYTE
FLOOD = 3000

PREDICT = "/attnpriv.v1.AttnprivService/Predict"
STREAM = "/attnpriv.v1.AttnprivService/PredictStream"
WATCH = "/grpc.health.v1.Health/Watch"
INFER = "/inference.GRPCInferenceService/ModelInfer"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

# HTTP/2 (RFC 9113): kinds of frames, and their flags.
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4
PADDED = 8
INITIAL_WINDOW = 4


def number(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size)


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return number(len(payload), 3) + bytes([kind, flags]) + number(stream) + payload


def text(value: str | bytes) -> bytes:
    """A string of HPACK (RFC 7541), not packed."""
    raw = value.encode() if isinstance(value, str) else value
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest = len(raw) - 127
    return bytes([127, rest % 128 + 128, rest // 128]) + raw


def field(name: str, value: str | bytes) -> bytes:
    return b"\x00" + text(name) + text(value)


def block(path: str, **more: str | bytes) -> bytes:
    """The headers of a call."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
    }
    fields |= {name.replace("_", "-"): value for name, value in more.items()}
    return b"".join(field(*each) for each in fields.items())


def message(raw: bytes, compressed: int = 0) -> bytes:
    return bytes([compressed]) + number(len(raw)) + raw


def begin(stream: int = 1, path: str = PREDICT, **more: str | bytes) -> bytes:
    return frame(HEADERS, END_HEADERS, stream, block(path, **more))


def send(content: bytes, stream: int = 1) -> bytes:
    """A body in frames of the largest size."""
    size = 16384
    parts = [content[at : at + size] for at in range(0, len(content), size)]
    return b"".join(frame(DATA, END_STREAM * (part is parts[-1]), stream, part) for part in parts)


def settings(*pairs: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(number(key, 2) + number(value) for key, value in pairs))


def reset(stream: int) -> bytes:
    return frame(RESET, 0, stream, number(8))


HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings()
REQUEST = message(pb.PredictRequest(model="private", texts=["a"]).SerializeToString())
STREAMED = message(
    pb.PredictStreamRequest(
        number=1, request=pb.PredictRequest(model="private", texts=["a"])
    ).SerializeToString()
)
NOISE = random.Random(0).randbytes(4096)
STREAMS = range(1, 2 * FLOOD, 2)
LONG = field("x", "y" * 16000)

ATTACKS: dict[str, bytes] = {
    # Not HTTP/2
    "noise": NOISE,
    "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS where none is spoken": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + NOISE[:500],
    "half a preface": HELLO[:10],
    # Frames that cannot be
    "a frame of 16 MB": HELLO + b"\xff\xff\xff\x00\x00" + number(1) + NOISE * 8,
    "data without a stream": HELLO + frame(DATA, 0, 0, b"x"),
    "data of a stream that was never begun": HELLO + frame(DATA, 0, 7, b"x"),
    "a stream of the server's": HELLO + begin(2),
    "streams backwards": HELLO + begin(5) + begin(3),
    "settings of 5 bytes": HELLO + frame(SETTINGS, 0, 0, b"12345"),
    "settings that cannot be": HELLO + settings((2, 7), (INITIAL_WINDOW, 2**31), (5, 1)),
    "a window that grows by nothing": HELLO + frame(WINDOW, 0, 0, bytes(4)),
    "a window that overflows": HELLO + frame(WINDOW, 0, 0, number(2**31 - 1)) * 3,
    "a ping of 3 bytes": HELLO + frame(PING, 0, 0, b"123"),
    "a continuation of nothing": HELLO + frame(CONTINUATION, END_HEADERS, 1),
    "a push from a client": HELLO + frame(PUSH, END_HEADERS, 1, bytes(4) + block(PREDICT)),
    "padding beyond the frame": HELLO + frame(DATA, PADDED, 1, b"\xff"),
    "unknown frames": HELLO
    + b"".join(frame(10 + n % 246, n % 256, n, NOISE[:50]) for n in range(FLOOD)),
    # Headers that cannot be
    "noise for headers": HELLO + frame(HEADERS, END_HEADERS, 1, NOISE),
    "an endless integer": HELLO + frame(HEADERS, END_HEADERS, 1, b"\xff" * 200),
    "a table of 4 GB": HELLO + frame(HEADERS, END_HEADERS, 1, b"\x3f\xff\xff\xff\xff\x0f"),
    "a GET": HELLO + frame(HEADERS, END_HEADERS, 1, block(PREDICT).replace(b"POST", b"HEAD")),
    "no path": HELLO + frame(HEADERS, END_HEADERS + END_STREAM, 1, field(":method", "POST")),
    "an empty path": HELLO + begin(path="") + send(REQUEST),
    "a path of bytes": HELLO + begin(path="/\x01\xff" * 200) + send(REQUEST),
    "deadlines that cannot be": HELLO
    + begin(1, grpc_timeout="soon")
    + begin(3, grpc_timeout="-5S")
    + begin(5, grpc_timeout="99999999H")
    + send(REQUEST, 5),
    "a token of bytes": HELLO + begin(authorization=b"Bearer \xff\xfe\x00") + send(REQUEST),
    "a trace of bytes": HELLO + begin(traceparent=b"\xff\x01", tracestate=NOISE[:99]),
    "metadata that are not base64": HELLO + begin(x_bin="!!!") + send(REQUEST),
    # Messages that cannot be
    "a message of 4 GB": HELLO + begin() + frame(DATA, 0, 1, b"\x00\xff\xff\xff\xff" + NOISE),
    "a message cut off": HELLO + begin() + send(REQUEST[:-1]),
    "no message": HELLO + begin() + frame(DATA, END_STREAM, 1),
    "several messages for one": HELLO + begin() + send(REQUEST * 100),
    "messages after the end": HELLO + begin() + send(REQUEST) + send(REQUEST) * 9,
    "an unknown compression": HELLO + begin(grpc_encoding="br") + send(message(NOISE, 1)),
    "noise for gzip": HELLO + begin(grpc_encoding="gzip") + send(message(NOISE, 1)),
    "compressed, but by what?": HELLO + begin() + send(message(NOISE, 1)),
    "neither compressed nor not": HELLO + begin() + send(message(NOISE, 7)),
    "noise in a stream": HELLO + begin(path=STREAM) + send(STREAMED + message(NOISE) + STREAMED),
    "a stream that is reset": HELLO + begin(path=STREAM) + frame(DATA, 0, 1, STREAMED) + reset(1),
    # Floods
    "flood of settings": HELLO + settings((INITIAL_WINDOW, 0), (INITIAL_WINDOW, 65535)) * FLOOD,
    "flood of pings": HELLO + frame(PING, 0, 0, bytes(8)) * FLOOD,
    "flood of priorities": HELLO + b"".join(frame(PRIORITY, 0, n, bytes(5)) for n in STREAMS),
    "flood of nothing": HELLO + begin() + frame(DATA, 0, 1) * FLOOD,
    "flood of calls": HELLO + b"".join(map(begin, STREAMS)),
    "flood of calls that are reset": HELLO + b"".join(begin(n) + reset(n) for n in STREAMS),
    "flood of requests that are reset": HELLO
    + b"".join(begin(n) + send(REQUEST, n) + reset(n) for n in STREAMS),
    "flood of streams that are reset": HELLO
    + b"".join(begin(n, STREAM) + frame(DATA, 0, n, STREAMED) + reset(n) for n in STREAMS),
    "flood of empty continuations": HELLO
    + frame(HEADERS, 0, 1, block(PREDICT))
    + frame(CONTINUATION, 0, 1) * FLOOD,
    "flood of continuations": HELLO
    + frame(HEADERS, 0, 1, block(PREDICT))
    + frame(CONTINUATION, 0, 1, LONG) * 200,
}


class Memory:
    """Resident bytes of this process; the peak since it was made."""

    def __init__(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    @property
    def growth(self) -> int:
        return self._read("VmHWM") - self._before

    def _read(self, name: str) -> int:
        lines = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        return 1024 * int(lines[name].split()[0])


class Host:
    """A server of this process, a polite client of it, and sockets to it; a context manager."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._run(self._start())
        self.port = self._server.port
        # Without its own pool the channel would share a connection with others to this port.
        self._channel = grpc.insecure_channel(
            f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)]
        )
        self.stub = AttnprivServiceStub(self._channel)
        self.health = health_pb2_grpc.HealthStub(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        self.stop(grace=0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self, grace: float) -> None:
        self._run(self._server.stop(grace))

    def is_polite(self) -> bool:
        """Whether a client that does nothing wrong is answered."""
        request = pb.PredictRequest(model="private", texts=["Where is my parcel?"])
        return len(self.stub.Predict(request, timeout=SECONDS).predictions) == 1

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), SECONDS)
        with suppress(ConnectionError):  # the server may close it in the middle
            connection.sendall(sent)
        return connection

    async def _start(self) -> Server:
        server = Server(self._core, "127.0.0.1:0")
        await server.start()
        return server

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(SECONDS)


@pytest.fixture(scope="module")
def host(make_core, models) -> Iterator[Host]:
    with Host(make_core(models)) as found:
        yield found


def frames(connection: socket.socket) -> Iterator[tuple[int, int, bytes]]:
    """What the server sends until it closes the connection: kinds, flags and payloads."""
    try:
        with connection.makefile("rb") as file:
            while head := file.read(9):
                yield head[3], head[4], file.read(int.from_bytes(head[:3]))
    except ConnectionError:
        return


def until_read(connection: socket.socket) -> list[tuple[int, int, bytes]]:
    """What the server sends until it has read everything, or has closed the connection."""
    mark = b"everyone"
    found = []
    with suppress(ConnectionError):
        connection.sendall(frame(PING, 0, 0, mark))
    for each in frames(connection):
        found.append(each)
        if each == (PING, ACK, mark):
            break
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_answered_whatever_one_connection_sends(host, caplog, name) -> None:
    memory = Memory()
    with host.connect(ATTACKS[name]) as connection:
        assert host.is_polite()
        if name != "half a preface":  # which goes on, and is waited for
            until_read(connection)
        assert host.is_polite()
    assert memory.growth < GROWTH
    assert not [record for record in caplog.records if record.msg == "defect"]


def endings(connection: socket.socket) -> Iterator[bytes]:
    """The headers that end calls, one after the other."""
    for kind, flags, payload in frames(connection):
        if kind == HEADERS and flags & END_STREAM:
            yield payload


def test_a_gzip_bomb_is_refused_before_it_is_unpacked(host) -> None:
    bomb = message(gzip.compress(bytes(64 * MEGABYTE)), 1)
    assert len(bomb) < 70_000
    memory = Memory()  # only now: to make the bomb may take as much

    with host.connect(HELLO + begin(grpc_encoding="gzip") + send(bomb)) as connection:
        ended = next(endings(connection))

    assert field("grpc-status", "8") in ended
    assert b"Decompressed message larger than max" in ended
    assert memory.growth < GROWTH
    assert host.is_polite()


@pytest.mark.parametrize("fields", [1, 40])
def test_large_headers_are_refused_to_clients_that_care_for_no_settings(host, fields) -> None:
    """Those that do learn the limit from them, and refuse themselves.

    Of other clients' headers gRPC refuses some at random, with the same status and the more the
    longer they are: 5 of 300 like the larger ones here. So several are sent.
    """
    begun = frame(HEADERS, 0, 1, block(PREDICT)) + frame(CONTINUATION, 0, 1, LONG) * fields
    request = frame(CONTINUATION, END_HEADERS, 1) + send(REQUEST)

    ended = []
    for _ in range(4):
        with host.connect(HELLO + begun + request) as connection:
            ended.append(next(endings(connection)))

    assert all(b"grpc-status\x018" in each for each in ended)
    assert any(b"expected at most 8192 bytes of metadata" in each for each in ended)
    assert host.is_polite()


def test_strangers_are_turned_away_before_they_have_sent_a_message(make_core, tmp_path) -> None:
    """Or parts of messages would fill the memory."""
    principals = tmp_path / "principals.toml"
    principals.write_text(
        f'[[principal]]\nname = "a"\nroles = []\ntokens = [{{ sha256 = "{new_token()[1]}" }}]'
    )
    paths = [PREDICT, STREAM, WATCH, INFER]
    calls = range(1, 200, 2)
    with Host(make_core({}, access=Access.from_file(principals))) as host:
        begun = b"".join(begin(n, paths[n // 2 % len(paths)]) for n in calls)
        with host.connect(HELLO + begun) as connection:
            ended = list(islice(endings(connection), len(calls)))

    assert len(ended) == len(calls)
    assert b"this needs a valid bearer token" in ended[0]


def test_slow_and_silent_connections_keep_nobody_waiting(make_core, models) -> None:
    """Bytes dribble, messages stop half-way, and connections say nothing at all."""
    whole = HELLO + begin() + send(REQUEST)
    with Host(make_core(models, limits=Limits(handshake_seconds=1))) as host, ExitStack() as stack:
        silent = [stack.enter_context(host.connect()) for _ in range(32)]
        half = [stack.enter_context(host.connect(whole[:-5])) for _ in range(32)]
        dribbled = stack.enter_context(host.connect())
        for byte in whole:
            dribbled.sendall(bytes([byte]))
            if byte % 16 == 0:
                assert host.is_polite()

        assert next(endings(dribbled))
        for each in silent:
            list(frames(each))  # ends, since the server hangs up
        half[0].sendall(whole[-5:])
        assert next(endings(half[0]))
        assert host.is_polite()


def test_a_client_that_reads_nothing_keeps_nothing_from_going_on(make_core, models) -> None:
    """Answers, news of its health, and the server's end, which waits no longer than its grace."""
    closed = settings((INITIAL_WINDOW, 0))
    paths = {1: WATCH, 3: REFLECT, 5: STREAM, 7: PREDICT}
    requests = {WATCH: message(b""), REFLECT: message(b"\x3a\x00"), STREAM: STREAMED}
    with Host(make_core(models)) as host:
        calls = b"".join(
            begin(n, path) + frame(DATA, 0, n, requests.get(path, REQUEST) * 20)
            for n, path in paths.items()
        )
        with host.connect(HELLO + closed + calls) as connection:
            until_read(connection)
            assert host.is_polite()
            watch = host.health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            host.stop(grace=0.2)
            told = [each.status for each in watch]

    assert told == [health_pb2.HealthCheckResponse.NOT_SERVING]
